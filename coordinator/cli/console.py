"""Output: consoles, errors, and text that others wrote."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

_KEEP = frozenset("\n\t")


def stdout() -> Console:
    """Results; coloured only on a terminal, never re-interpreting text as markup."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def stderr() -> Console:
    """Progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_error(message: str, hint: str | None) -> None:
    """One red line, then the hint."""
    console = stderr()
    console.print(Text("error: ", style="bold red") + Text(printable(message), style="red"))
    if hint:
        console.print(Text("hint: ", style="bold") + Text(printable(hint)))


def printable(text: str) -> str:
    """Without control characters: a document must not drive the terminal."""
    return "".join(c for c in text if c in _KEEP or (c >= " " and not "\x7f" <= c <= "\x9f"))


def write_piece(text: str) -> None:
    """A piece of streamed text, shown at once."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()
