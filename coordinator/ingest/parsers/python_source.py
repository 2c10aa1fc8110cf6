"""Python source: its own text, with a heading per class and function.

Signatures, docstrings and comments stay where they are, so offsets point into
the file itself. The source is parsed, never run.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path, PurePath

from coordinator.ingest.document import Heading, ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.decode import read_text

_MAX_LEVEL = 20


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document; source that does not parse is kept as plain text, with a note."""
    del limits
    decoded = read_text(path)
    note = decoded.note
    headings: tuple[Heading, ...] = ()
    try:
        tree = ast.parse(decoded.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        note = f"is not valid Python and was read as plain text ({type(error).__name__})"
    else:
        headings = _headings(decoded.text, tree)
    return (
        ParsedDocument(
            document_id=name,
            title=PurePath(name).name,
            text=decoded.text,
            headings=headings,
            source=str(path),
            note=note,
        ),
    )


def _headings(text: str, tree: ast.Module) -> tuple[Heading, ...]:
    # ast counts lines as str.split("\n") does, not as str.splitlines().
    lengths = (len(line) + 1 for line in text.split("\n"))
    starts = [0, *itertools.accumulate(lengths)]
    found = [Heading(starts[line - 1], level, title) for line, level, title in _named(tree, 1)]
    return tuple(sorted(found, key=lambda h: h.offset))


def _named(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, level: int
) -> Iterator[tuple[int, int, str]]:
    """(line, level, title) of classes and functions; decorators belong to them."""
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        kind = "class" if isinstance(child, ast.ClassDef) else "def"
        line = min([child.lineno, *(d.lineno for d in child.decorator_list)])
        yield line, level, f"{kind} {child.name}"
        if level < _MAX_LEVEL:
            yield from _named(child, level + 1)
