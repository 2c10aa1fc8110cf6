"""``ragrig index``: take over, hand out and tune the index of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import options

FaissFile = Annotated[
    Path, typer.Argument(help="A faiss index: IndexIVFPQ, bare or with OPQ and refinement.")
]
NewFile = Annotated[Path, typer.Argument(help="File to write; it must not exist.")]
Named = Annotated[str, typer.Argument(help="Collection.", metavar="COLLECTION")]
NewName = Annotated[
    str | None,
    typer.Option("--name", help="Collection to make. Default: the file's name.", metavar="NAME"),
]
Texts = Annotated[
    Path | None,
    typer.Option(
        help="One line per vector by ascending id: text, or in a .jsonl file"
        ' {"text", "id", "title", "metadata"}.',
        metavar="FILE",
    ),
]
Sources = Annotated[
    list[Path], typer.Argument(help="Files and folders of text.", metavar="PATH...")
]
Llm = Annotated[
    str | None,
    typer.Option(
        help="LLM node with the model. Default: the running rig's first with an hf: generator.",
        metavar="HOST:PORT",
    ),
]
WindowChars = Annotated[
    int, typer.Option(help="Characters the model reads at a time.", min=16, max=4000)
]
Recall = Annotated[float, typer.Option(help="Recall to reach, such as 0.95.", min=0.01, max=1.0)]
K = Annotated[int, typer.Option("-k", "--k", help="Nearest rows that count.", min=1, max=100)]
Queries = Annotated[
    Path | None,
    typer.Option(
        help="float32 [n, dim] .npy file of real queries. Default: rows of the collection.",
        metavar="FILE.npy",
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        help="int64 [n, k] .npy file: row ids of the queries' true neighbours."
        " Default: exact search over stored vectors.",
        metavar="FILE.npy",
    ),
]
Sample = Annotated[
    int, typer.Option(help="Rows that serve as queries.", min=1, max=10_000, show_default=True)
]
Threads = Annotated[
    int | None, typer.Option(help="Threads that search. Default: all.", min=1, max=1024)
]


def build() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        help="Take over, hand out and tune the index of a collection.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("import")(import_)
    app.command()(export)
    app.command()(tune)
    app.command()(knnlm)
    return app


def import_(
    file: FaissFile,
    name: NewName = None,
    texts: Texts = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
) -> None:
    """Make a collection of a faiss index; searches give what faiss gave."""
    from coordinator.cli.indexing import run_import
    from coordinator.cli.target import rig_of

    run_import(rig_of(config, data_dir), file, name, texts)


def knnlm(
    sources: Sources,
    name: NewName = None,
    llm: Llm = None,
    window_chars: WindowChars = 1000,
    config: options.Config = None,
    data_dir: options.DataDir = None,
) -> None:
    """Make a kNN-LM datastore: a model's states in texts, each with the token that followed.

    A rig answers with it when its file says coordinator.generation.kind: knn.
    """
    from coordinator.cli.datastore import run_knnlm
    from coordinator.cli.target import rig_of

    run_knnlm(rig_of(config, data_dir), tuple(sources), name, llm, window_chars)


def export(
    collection: Named,
    file: NewFile,
    config: options.Config = None,
    data_dir: options.DataDir = None,
) -> None:
    """Write a collection's index as a faiss file; row ids are its ids."""
    from coordinator.cli.indexing import run_export
    from coordinator.cli.target import rig_of

    run_export(rig_of(config, data_dir), collection, file)


def tune(
    collection: Named,
    recall: Recall,
    k: K = 10,
    queries: Queries = None,
    truth: Truth = None,
    sample: Sample = 500,
    threads: Threads = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
) -> None:
    """Measure a collection's recall and search it so that it reaches a wanted one.

    Exits with 1 when that is out of reach; the best settings are then set.
    """
    from coordinator.cli.indexing import TuneChoices, run_tune
    from coordinator.cli.target import rig_of

    choices = TuneChoices(collection, recall, k, queries, truth, sample, threads)
    if not run_tune(rig_of(config, data_dir), choices):
        raise typer.Exit(1)
