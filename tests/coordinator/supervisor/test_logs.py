"""Logs stay within their bound while a node writes."""

from __future__ import annotations

from pathlib import Path

from coordinator.supervisor.logs import LogLimits, rotate_if_large, tail


def test_large_log_moves_aside_under_its_writer(tmp_path: Path) -> None:
    log, limits = tmp_path / "n.log", LogLimits(max_bytes=10, keep=2)
    with log.open("ab") as writer:
        for text in (b"first life!!\n", b"second life!!\n", b"third life!!\n"):
            writer.write(text)
            writer.flush()
            assert rotate_if_large(log, limits)
        writer.write(b"end\n")
    assert log.read_bytes() == b"end\n"
    assert (tmp_path / "n.log.1").read_bytes() == b"third life!!\n"
    assert (tmp_path / "n.log.2").read_bytes() == b"second life!!\n"
    assert not (tmp_path / "n.log.3").exists()
    assert not rotate_if_large(log, limits)
    assert not rotate_if_large(tmp_path / "none.log", limits)


def test_tail_gives_the_last_lines_of_any_bytes(tmp_path: Path) -> None:
    log = tmp_path / "n.log"
    log.write_bytes(b"\xff\n" + b"x\n" * 100 + b"last")
    assert tail(log, lines=2) == "x\nlast"
    assert tail(tmp_path / "none.log") == ""
