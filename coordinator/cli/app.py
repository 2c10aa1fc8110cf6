"""The command's tree and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import typer.main

from coordinator.cli import (
    ask,
    bench,
    demo,
    doctor,
    export,
    index,
    ingest,
    plan,
    profile,
    search,
    status,
    up,
)
from ragschema.errors import RagrigError
from ragschema.version import SOFTWARE_VERSION

FAILURE = 1
USAGE = 2
INTERRUPTED = 130

_EPILOG = "Every command explains itself: ragrig COMMAND --help"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ragrig {SOFTWARE_VERSION}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Retrieval-augmented generation over your own documents, served by real nodes."""


def build() -> typer.Typer:
    """The commands, in the order in which a newcomer needs them."""
    app = typer.Typer(
        name="ragrig",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command()(demo.demo)
    app.command()(up.up)
    app.command()(ingest.ingest)
    app.add_typer(index.build(), name="index")
    app.command()(ask.ask)
    app.command()(search.search)
    planning = plan.build()
    planning.command()(export.export)
    app.add_typer(planning, name="plan")
    app.command()(profile.profile)
    app.add_typer(bench.build(), name="bench")
    app.command()(status.status)
    app.command()(doctor.doctor)
    return app


def run(argv: Sequence[str]) -> int:
    """Runs one command; the exit code: 0 well, 1 failed, 2 wrong usage, 130 interrupted.

    With RAGRIG_DEBUG=1 in the environment errors keep their traceback.
    """
    command = typer.main.get_command(build())
    try:
        result = command.main(list(argv), prog_name="ragrig", standalone_mode=False)
    except RagrigError as error:
        return _failed(error, error.message, _hint_of(error), FAILURE)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output left, as `| head` does; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001  the last line before the user
        return _unforeseen(error, argv)
    if result == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


def _hint_of(error: RagrigError) -> str | None:
    """The hint; a field is named too where the words do not name it already."""
    hint, field = error.hint or "", error.field or ""
    words = f"{error.message} {hint}".replace("-", "_")
    if field and field.rpartition(".")[2].replace("-", "_") not in words:
        hint = f"{hint}; look at {field}" if hint else f"look at {field}"
    return hint or None


def _unforeseen(error: Exception, argv: Sequence[str]) -> int:
    """typer's usage errors, and defects of ours."""
    describe = getattr(error, "format_message", None)
    if describe is not None:
        near = getattr(error, "possibilities", None)
        message = str(getattr(error, "message", error)) if near else str(describe())
        if not message.strip():
            return USAGE  # bare `ragrig`: the help was the answer
        return _failed(error, message, _usage_hint(error, argv), USAGE)
    return _failed(
        error,
        f"ragrig failed: {type(error).__name__}: {error}",
        "set RAGRIG_DEBUG=1 to see where, and report it",
        FAILURE,
    )


def _usage_hint(error: Exception, argv: Sequence[str]) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ragrig"
    near: Sequence[str] = getattr(error, "possibilities", None) or ()
    guess = f"did you mean {' or '.join(sorted(near))}? " if near else ""
    return f"{guess}see {path} --help"


def _failed(error: Exception, message: str, hint: str | None, code: int) -> int:
    if os.environ.get("RAGRIG_DEBUG") == "1":
        raise error
    from coordinator.cli.console import print_error

    print_error(message, hint)
    return code
