"""This machine, and one made of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragschema.here import this_machine, this_software, usable_cores


def test_this_machine_is_the_same_twice() -> None:
    machine = this_machine()
    assert machine == this_machine()
    assert machine.cores == usable_cores() >= 1
    assert machine.memory_gib > 0


def test_a_machine_of_files(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "driver" / "nvidia" / "gpus" / "0000:01").mkdir(parents=True)
    (proc / "cpuinfo").write_text("model name\t: A CPU @ 3 GHz\nflags\t\t: avx2 avx512bw\n")
    (proc / "meminfo").write_text("MemTotal:       8388608 kB\n")
    (proc / "driver/nvidia/gpus/0000:01/information").write_text("Model: \t\t A GPU\n")
    machine = this_machine(tmp_path)
    assert (machine.cpu, machine.memory_gib, machine.simd) == ("A CPU @ 3 GHz", 8.0, "avx512bw")
    assert machine.accelerators == ("A GPU",)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert machine.cpu
    assert machine.simd == "none known"
    assert machine.accelerators == ()


def test_this_software() -> None:
    software = this_software()
    assert software.libraries["numpy"] == np.__version__
    assert software.commit is None or len(software.commit) >= 40
