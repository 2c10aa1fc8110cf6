"""The demo's course, with stand-ins for nodes and ingestion; tests/e2e has the real ones."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coordinator.demo.questions import QUESTIONS
from coordinator.demo.rig import demo_rig
from coordinator.demo.run import run_demo
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import SupervisionPolicy
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.supervisor import SupervisorOptions
from ragschema.errors import Overloaded, RagrigError, Unavailable
from tests.coordinator.cli.test_ingest import MODULE, REPO, SUMMARY
from tests.coordinator.supervisor.helpers import STAND_IN

NODE = (sys.executable, "-m", "tests.coordinator.demo.stand_in")
Demo = Callable[..., int]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Runs the demo in ``tmp_path``; keyword arguments are environment variables."""
    monkeypatch.setattr("coordinator.supervisor.ingestion._MODULE", MODULE)
    monkeypatch.setattr("coordinator.demo.run.write_corpus", lambda _target: FakeCorpus())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("STAND_IN_SPEC", str(tmp_path / "spec"))

    def go(program: tuple[str, ...] = NODE, code: int = 0, **env: str) -> int:
        end = {"line": {"summary": SUMMARY}, "code": code}
        monkeypatch.setenv("STAND_IN_END", json.dumps(end))
        settings = SupervisorOptions(
            Programs(program, program, program),
            SupervisionPolicy(max_failed_starts=1, grace_s=2.0),
            env={**os.environ, **env},
        )
        return run_demo(tmp_path, keep=False, options=settings)

    return go


class FakeCorpus:
    documents = 7


def nothing_runs(tmp_path: Path) -> bool:
    named = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    return not any(str(tmp_path) in part for argv in named for part in argv)


def test_asks_three_questions_and_stops_everything(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo() == 0
    shown = capsys.readouterr()
    for question in QUESTIONS:
        assert f"? {question.text}" in shown.out
    assert shown.out.count("Citations") == 3
    assert shown.out.count("Streamed.") == 1
    assert shown.out.count("Rotate it [1].") == 2
    assert "stage timings in ms" in shown.out
    assert "embed" in shown.err, "progress bars"
    assert nothing_runs(tmp_path)
    assert RunDir.of(tmp_path).read_state() is None
    spec = json.loads((tmp_path / "spec").read_text())
    assert (spec["collection"], spec["num_shards"]) == ("python-stdlib", 2)


def refused(demo: Demo, kind: type[RagrigError], **how: object) -> RagrigError:
    with pytest.raises(kind) as caught:
        demo(**how)
    return caught.value


def test_node_that_fails_names_the_log(demo: Demo, tmp_path: Path) -> None:
    error = refused(demo, Unavailable, program=STAND_IN, STAND_IN_FAIL="ret-1")
    assert "there is no model in /nowhere" in error.message
    assert f"logs are in {tmp_path / 'run' / 'logs'}" in (error.hint or "")
    assert nothing_runs(tmp_path)


def test_refused_question_fails_the_demo(demo: Demo, tmp_path: Path) -> None:
    error = refused(demo, Overloaded, STAND_IN_REFUSE="1")
    assert error.message == "too busy"
    assert nothing_runs(tmp_path)


def test_unreadable_corpus_fails_the_demo(demo: Demo, tmp_path: Path) -> None:
    error = refused(demo, Unavailable, code=1)
    assert "nothing of the corpus" in error.message
    assert nothing_runs(tmp_path)


def test_the_rig_is_the_promised_one(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    assert [(n.backend, n.device) for n in rig.retrieval_nodes] == [("fpga", "emulator")] * 2
    assert [(n.embedder, n.generator) for n in rig.llm_nodes] == [("minilm", "extractive")]
    assert rig.coordinator.port == 0


def test_there_are_three_questions_and_one_is_streamed() -> None:
    assert [question.stream for question in QUESTIONS].count(True) == 1
    assert len(QUESTIONS) == 3
