from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_node.__main__ import main


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(str(caught.value.code)), out + err


def test_help_names_every_command_and_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, text = _fails(capsys, "--help")
    assert code == 0
    assert "serve" in text
    assert "build" in text
    code, text = _fails(capsys, "serve", "--help")
    assert code == 0
    for option in (
        "--data", "--backend", "--mode", "--threads", "--cpus", "--numa-node", "--memory",
        "--coalesce-max-batch", "--coalesce-max-wait-us", "--max-waiting", "--ready-file",
    ):  # fmt: skip
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nam", "x"), "--name"),
        (("--data", "d", "--backend", "gpu"), "faiss"),
        (("--data", "d", "--backend", "simd", "--mode", "slow"), "contract16"),
        (("--data", "d", "--memory", "disk"), "huge"),
        (("--data", "d", "--numa-node", "-1"), "--numa-node"),
        (("--data", "d", "--coalesce-max-batch", "0"), "--coalesce-max-batch"),
        (("--data", "d", "--coalesce-max-wait-us", "-1"), "--coalesce-max-wait-us"),
        (("--data", "d", "--threads", "0"), "greater than or equal to 1"),
        (("--data", "d", "--log-level", "loud"), "warning"),
        ((), "--data"),
        (("build",), "SPEC"),
    ],
)
def test_a_wrong_option_names_the_fix(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, text = _fails(capsys, *arguments)
    assert code == 2
    assert said.lower() in text.lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode", "fast"), "the fpga backend has no mode"),
        (("--cpus", "0-"), "is no list of processors"),
        (("--cpus", "0"), "the fpga backend does not pin"),
        (("--cpus", "65000", "--backend", "simd"), "may not run on processor 65000"),
        (("--numa-node", "999"), "no NUMA node 999"),
    ],
)
def test_options_that_this_machine_or_backend_cannot_fulfil(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    code, text = _fails(capsys, "--data", str(tmp_path), *options)
    assert code == 1
    assert said in text
    assert options[0] in text


def test_data_that_is_a_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    code, text = _fails(capsys, "--data", str(path))
    assert code == 1
    assert "is not a directory" in text
