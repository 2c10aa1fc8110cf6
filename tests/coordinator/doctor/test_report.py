"""The doctor on machines that are not this one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coordinator.doctor import accelerators, cpu, place, software
from coordinator.doctor.machine import Machine
from coordinator.doctor.report import examine, problems
from coordinator.doctor.rows import Level, Row

CPUINFO = "processor\t: 0\nmodel name\t: Fast 1\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"


def fake(root: Path, files: dict[str, str], programs: dict[str, str] | None = None) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    bin_dir = root / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    for name, script in (programs or {}).items():
        program = bin_dir / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return Machine(root, {"PATH": str(bin_dir)})


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("sse2", "none known"),
        ("avx avx2", "AVX2"),
        ("avx2 avx512f", "AVX2"),
        ("avx2 avx512f avx512bw avx512vl", "AVX-512"),
        ("avx2 avx512f avx512bw avx512vl avx512vbmi", "AVX-512 with VBMI"),
    ],
)
def test_simd_level(tmp_path: Path, flags: str, level: str) -> None:
    machine = fake(tmp_path, {"proc/cpuinfo": CPUINFO.format(flags=flags)})
    assert cpu.simd(machine).found == level


def test_cores_and_model(tmp_path: Path) -> None:
    row = cpu.cores(fake(tmp_path, {"proc/cpuinfo": CPUINFO.format(flags="")}))
    assert row.found.startswith("2 (")
    assert "Fast 1" in row.found


@pytest.mark.parametrize(("free_kb", "level"), [(8 << 20, Level.OK), (1 << 20, Level.PROBLEM)])
def test_memory(tmp_path: Path, free_kb: int, level: Level) -> None:
    text = f"MemTotal:       16777216 kB\nMemAvailable:   {free_kb} kB\n"
    row = cpu.memory(fake(tmp_path, {"proc/meminfo": text}))
    assert row.level is level
    assert row.found.startswith("16.0 GiB")
    assert bool(row.install) == (level is Level.PROBLEM)


@pytest.mark.parametrize(("setting", "level"), [("madvise", Level.OK), ("never", Level.OPTIONAL)])
def test_huge_pages(tmp_path: Path, setting: str, level: Level) -> None:
    text = "always madvise never".replace(setting, f"[{setting}]")
    machine = fake(
        tmp_path,
        {
            "sys/kernel/mm/transparent_hugepage/enabled": text,
            "proc/meminfo": "HugePages_Total:      12\n",
        },
    )
    row = cpu.huge_pages(machine)
    assert (row.level, row.found) == (level, f"transparent: {setting}, reserved: 12")


def test_no_gpu(tmp_path: Path) -> None:
    row = accelerators.gpu(fake(tmp_path, {}))
    assert (row.level, row.found) == (Level.OPTIONAL, "none")


def test_gpu_without_driver_names_the_driver(tmp_path: Path) -> None:
    row = accelerators.gpu(fake(tmp_path, {"dev/nvidia0": ""}))
    assert row.found == "/dev/nvidia0"
    assert "driver" in row.install


@pytest.mark.parametrize(("answer", "level"), [("yes", Level.OK), ("no", Level.OPTIONAL)])
def test_gpu_seen_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, level: Level
) -> None:
    machine = fake(
        tmp_path,
        {"dev/nvidia0": ""},
        {"nvidia-smi": "echo 'Big GPU, 80 GiB'", "python-fake": f"echo {answer}"},
    )
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python-fake"))
    row = accelerators.gpu(machine)
    assert row.level is level
    assert row.found.startswith("Big GPU, 80 GiB")


def test_fpga_card_without_runtime_names_xrt(tmp_path: Path) -> None:
    machine = fake(tmp_path, {"dev/xclmgmt0": "", "dev/dri/renderD128": ""})
    row = accelerators.fpga(machine)
    assert row.level is Level.OPTIONAL
    assert "XRT" in row.install
    assert "render nodes: 1" in row.found


def test_fpga_complete(tmp_path: Path) -> None:
    machine = fake(tmp_path, {"dev/xclmgmt0": ""}, {"xbutil": "true"})
    ready = Machine(machine.root, {**machine.env, "XILINX_XRT": "/opt/xilinx/xrt"})
    assert accelerators.fpga(ready).level is Level.OK


def test_compiler_missing_and_present(tmp_path: Path) -> None:
    row = software.compiler(fake(tmp_path / "a", {}))
    assert row.found == "missing: g++, make"
    assert "apt install" in row.install
    machine = fake(tmp_path / "b", {}, {"g++": "echo 'g++ 12.2'", "make": "true"})
    row = software.compiler(machine)
    assert (row.level, row.found) == (Level.OK, "g++ 12.2, make")


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        ("echo avx512", Level.OK, "compiled; code path avx512"),
        ("echo none", Level.OPTIONAL, "not compiled"),
        ("exit 1", Level.OPTIONAL, "not compiled"),
    ],
)
def test_native_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, level: Level, words: str
) -> None:
    machine = fake(tmp_path, {}, {"python-fake": answer})
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python-fake"))
    row = software.native_scan(machine)
    assert (row.level, row.found) == (level, words)
    assert ("g++" in row.install) == (level is Level.OPTIONAL)
    assert "faiss" in row.enables


def test_failing_and_slow_programs_count_as_absent(tmp_path: Path) -> None:
    machine = fake(tmp_path, {}, {"bad": "exit 3", "slow": "exec /bin/sleep 60"})
    assert machine.output_of(("bad",)) is None
    assert machine.output_of(("slow",), timeout_s=0.2) is None
    assert machine.output_of(("absent",)) is None


def test_missing_package_names_it_and_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_CORE", ("numpy", "no-such-package-here"))
    row = software.core_packages(Machine())
    assert row.level is Level.PROBLEM
    assert "missing: no-such-package-here; numpy" in row.found
    assert "make setup" in row.install


def test_weights_present_and_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.weights(Machine()).level is Level.OK
    monkeypatch.setattr(software, "_WEIGHTS", ("no_such_package_here", "model"))
    row = software.weights(Machine())
    assert (row.level, row.found) == (Level.OPTIONAL, "missing")


def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        row = place.port("127.0.0.1", busy.getsockname()[1], tmp_path)
    assert row.level is Level.PROBLEM
    assert "--port 0" in row.install


def test_data_dir_below_a_file_is_a_problem(tmp_path: Path) -> None:
    assert place.disk(tmp_path / "not" / "yet").level is Level.OK
    (tmp_path / "file").write_text("")
    assert place.disk(tmp_path / "file" / "x").level is Level.PROBLEM


def test_every_row_is_complete(tmp_path: Path) -> None:
    rows = examine(Machine(), tmp_path, "127.0.0.1", 0)
    assert len({row.name for row in rows}) == len(rows) == 14
    for row in rows:
        assert row.found
        assert row.enables
        assert row.level is not Level.PROBLEM or row.install


def test_problems_are_the_rows_that_block() -> None:
    good, bad = Row("a", Level.OK, "x", "y"), Row("b", Level.PROBLEM, "x", "y", "z")
    assert problems((good, bad)) == (bad,)
