"""``ragrig demo`` from the corpus to the last answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from coordinator.cli.answer import show_answer
from coordinator.cli.console import stderr, stdout
from coordinator.cli.ingesting import IngestChoices, make_spec
from coordinator.cli.progress import IngestProgress
from coordinator.cli.render import timings_table
from coordinator.cli.rest import Json, RestClient
from coordinator.cli.serving import wait_served
from coordinator.cli.summary import show_summary
from coordinator.cli.target import RunningRig, Target, running_rig, target_of
from coordinator.cli.up_view import UpView, nodes_table
from coordinator.demo.questions import QUESTIONS, DemoQuestion
from coordinator.demo.rig import demo_rig
from coordinator.ingest.spec import IngestSummary, spec_to_json, summary_from_dict
from coordinator.ingest.stdlib_corpus import write_corpus
from coordinator.supervisor.ingestion import run_ingestion
from coordinator.supervisor.run import with_rig
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.errors import RagrigError, Unavailable
from ragschema.rig import RigConfig

COLLECTION = "python-stdlib"
_INTERRUPTED = 130


def run_demo(data_dir: Path, *, keep: bool, options: SupervisorOptions | None = None) -> int:
    """Runs the whole demo; the exit code.

    Args:
        data_dir: corpus, collection, logs; used again by the next run.
        keep: whether the rig stays up afterwards, until a signal comes.

    Raises:
        RagrigError: what failed, with the place of the logs.
    """
    started_s = time.monotonic()
    demo = _Demo(demo_rig(data_dir), stdout(), keep=keep)
    try:
        finished = asyncio.run(with_rig(demo.rig, demo.view.changed, demo.play, options))
    except RagrigError as error:
        hint = f"{error.hint}; " if error.hint else ""
        error.hint = f"{hint}logs are in {data_dir / 'run' / 'logs'}"
        raise
    if not finished and not demo.answered:
        return _INTERRUPTED
    demo.console.print(f"everything is stopped; {time.monotonic() - started_s:.0f} s in all")
    return 0


class _Demo:
    """The demo's steps, over one rig."""

    def __init__(self, rig: RigConfig, console: Console, *, keep: bool) -> None:
        self.rig = rig
        self.console = console
        self.view = UpView()
        self.answered = False
        self._keep = keep

    async def play(self, supervisor: Supervisor) -> None:
        """The nodes start while the corpus is written: both take seconds."""
        corpus = Path(self.rig.data_dir) / "corpus"
        writing = asyncio.create_task(asyncio.to_thread(write_corpus, corpus))
        try:
            await supervisor.start_nodes()
            info = await writing
        finally:
            writing.cancel()
        self.console.print(f"corpus: {info.documents} modules of this machine's Python")
        readiness = await supervisor.start_coordinator()
        if not readiness.ready:
            raise Unavailable(f"the rig did not turn ready: {readiness.problem}")
        self.console.print(nodes_table(supervisor.views()))
        summary = await supervisor.or_failure(self._ingest(corpus))
        target = target_of(self._running())
        await supervisor.or_failure(asyncio.to_thread(self._ask_all, target, summary))
        self.answered = True
        if self._keep:
            self.console.print(f"the rig stays at {readiness.url}; Ctrl-C stops it")
            await supervisor.watch()

    def _running(self) -> RunningRig:
        found = running_rig(self.rig.data_dir)
        assert found is not None, "the coordinator is up, so the state is written"
        return found

    async def _ingest(self, corpus: Path) -> IngestSummary:
        choices = IngestChoices(sources=(str(corpus),), collection=COLLECTION)
        address = self._running().rig.llm_nodes[0].address
        assert address is not None
        spec = spec_to_json(make_spec(self.rig, choices, address))
        with IngestProgress(stderr()) as progress:
            end = await run_ingestion(spec, choices.thread_count, progress.update)
        summary = summary_from_dict(end.summary)
        show_summary(self.console, COLLECTION, summary)
        if end.exit_code:
            raise Unavailable("nothing of the corpus could be read", field="corpus")
        return summary

    def _ask_all(self, target: Target, summary: IngestSummary) -> None:
        wait_served(target, COLLECTION, summary.generation)
        rows: list[tuple[str, Json]] = []
        with RestClient(target) as client:
            for number, question in enumerate(QUESTIONS, start=1):
                reply = self._ask(client, question)
                name = f"{number}, streamed" if question.stream else f"{number}"
                rows.append((name, reply["timings"]))
        self.console.print()
        self.console.print(timings_table(rows))

    def _ask(self, client: RestClient, question: DemoQuestion) -> Json:
        self.console.print(Text(f"\n? {question.text}", style="bold magenta"))
        body = {"collection": COLLECTION, "question": question.text, "stream": question.stream}
        return show_answer(client, body, self.console)
