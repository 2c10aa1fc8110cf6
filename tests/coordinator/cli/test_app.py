"""Usage errors, exit codes, help: what a user sees who gets something wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli.app import build, run
from coordinator.cli.console import printable

ANY = Path("here.txt")


def fails(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(argv) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    return shown


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["serch", "x"], ["No such command 'serch'", "Did you mean 'search'"]),
        (["ask", "q", "--colection", "c"], ["--colection", "did you mean --collection?"]),
        (["up", "--port", "eighty"], ["--port", "integer", "see ragrig up --help"]),
        (["up", "--port", "99999"], ["--port", "65535"]),
        (["ask"], ["QUESTION", "see ragrig ask --help"]),
        (["ask", "q", "-k", "0"], ["'-k'", "1"]),
        (["ingest", "no-such-file", "--collection", "c"], ["no-such-file", "does not exist"]),
        (["ingest", "."], ["--collection"]),
        (["ingest", ".", "--collection", "c", "--metric", "dot"], ["--metric", "cosine"]),
        (
            ["ingest", ".", "--collection", "c", "--chunk-tokens", "64", "--chunk-overlap", "33"],
            ["--chunk-overlap", "33 is more than half of the 64 tokens"],
        ),
        (["ask", "q", "--filter", "year"], ["--filter", "write key=value"]),
        (["search", "q", "--filter", "a=1", "--filter", "a>2"], ["a has both"]),
    ],
)
def test_usage_errors_name_the_fix(
    argv: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = fails(argv, 2, capsys)
    assert "hint: " in shown
    for part in parts:
        assert part.lower() in shown.lower()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["status"], ["no rig is running on", "ragrig-data", "ragrig up"]),
        (["ask", "q", "--url", "http://127.0.0.1:9"], ["no rig is running at http://127.0.0.1:9"]),
        (["ask", "q", "--url", "localhost:9"], ["'localhost:9' is not an http URL"]),
        (["up", "-c", "none.yaml"], ["there is no rig file none.yaml", "examples/rigs"]),
        (["up", "--host", "0.0.0.0"], ["will not listen on 0.0.0.0 without an API key"]),
        (["up", "--api-key-file", "none"], ["there is no API key file"]),
        (["status", "--api-key-file", "none", "--url", "http://h"], ["there is no API key file"]),
        (["up", "--data-dir", "here.txt/x", "--port", "0"], ["cannot write", "--data-dir"]),
    ],
)
def test_failures_exit_with_1_and_a_hint(
    argv: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ANY.write_text("")
    shown = fails(argv, 1, capsys)
    for part in parts:
        assert part in shown


def test_wrong_key_of_a_rig_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rig.yaml").write_text("retrieval_node: []\n")
    shown = fails(["up", "-c", "rig.yaml"], 1, capsys)
    assert "retrieval_node" in shown
    assert "did you mean retrieval_nodes?" in shown


def test_debug_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGRIG_DEBUG", "1")
    with pytest.raises(Exception, match="no rig is running"):
        run(["status"])


def test_defect_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("coordinator.cli.target.find_target", broken)
    shown = fails(["status"], 1, capsys)
    assert "ZeroDivisionError: oops" in shown
    assert "RAGRIG_DEBUG=1" in shown


def test_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coordinator.cli.target.find_target", interrupted)
    assert run(["status"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"ragrig \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_every_option_of_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    import typer.main

    root = typer.main.get_command(build())
    commands = {"": root, **root.commands}  # type: ignore[attr-defined]
    plain = {"demo", "up", "ingest", "ask", "search", "profile", "status", "doctor"}
    groups = {
        "bench": {"load"},
        "index": {"import", "export", "knnlm", "tune"},
        "plan": {"make", "check", "compare", "export", "reproduce", "schema", "what-if"},
    }
    assert set(commands) == {"", *plain, *groups}
    for group, names in groups.items():
        inner = commands[group].commands
        assert set(inner) == names
        commands |= {f"{group} {name}": command for name, command in inner.items()}
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{name} {parameter.name}"
        assert run([*name.split(), "--help"]) == 0
        capsys.readouterr()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom coordinator.cli.app import run\nrun(['--help'])\n"
        "heavy = {'numpy','torch','faiss','grpc','httpx','pydantic','fastapi','psutil','asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "[]\n"
    assert "ingest" in done.stdout


def test_output_cut_short_is_no_traceback() -> None:
    line = f"{sys.executable} -c 'from coordinator.cli import main; main()' --help | true"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr


def test_documents_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\x9b\r\n\tc\x7f") == "a[31mb\n\tc"
