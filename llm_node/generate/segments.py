"""Cuts a passage into sentences, list items and code blocks.

Passages come from prose, Markdown, docstrings and source code, so line breaks
alone mean little: a paragraph is joined before it is cut into sentences, while
code and list items stay whole.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass


class SegmentKind(enum.StrEnum):
    """What a segment is; headings are read but never quoted."""

    PROSE = "prose"
    ITEM = "item"
    CODE = "code"
    HEADING = "heading"


@dataclass(frozen=True)
class Segment:
    """A piece of a passage that can be quoted by itself."""

    text: str
    kind: SegmentKind
    position: int


_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(\S.*)$")
_RULE = re.compile(r"^\s*([=\-~^*#_+|:`.' ])(?:\1|[\s|+:\-=])*$")
_ITEM = re.compile(r"^\s*(?:[-*+\u2022]|\(?\d{1,3}[.)]|\(?[a-z][.)]|:\w[\w ]*:|@\w+)\s+\S")
_BULLET = re.compile(r"^\s*[-*+\u2022]\s+")
_DOCTEST = re.compile(r"^\s*(?:>>>|\.\.\.)(?:\s|$)")
_CODE_START = re.compile(
    r"^\s*(?:def |class |async |import |from \S+ import |return\b|raise |@\w[\w.]*\s*(?:\(|$)"
    r"|(?:for|while|if|elif|with|else|try|except|finally)\b[^.!?]*:\s*$"
    r"|(?:print|self)\b[.(]|#include|\$ |[{}]\s*$)"
)
_SIGNATURE = re.compile(r"^\s*(?:class\s+)?[\w.]+\([^)]*\)\s*(?:->\s*\S.*)?:?$")
_COMMENTED = re.compile(r"\S\s+#\s|^\s{4,}#\s")
_ASSIGNMENT = re.compile(r"^\s*[\w.\[\]'\"]+(?:\s*,\s*\w+)*\s*[+\-*/|&]?=\s*\S")
_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]+")
_INITIALS = re.compile(r"(?:^|[\s(\"'])(?:[A-Za-z]\.)+$")
_ABBREVIATION_LIST = """
    e.g i.e cf vs dr mr mrs ms prof sr jr st no nos fig figs eq eqs sec ch vol pp approx resp al inc
    ltd co dept est ca viz op ed eds rev gen col lt sgt jan feb mar apr jun jul aug sep sept oct nov
    dec
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())


def split_passage(text: str) -> list[Segment]:
    """Segments of a passage in reading order; empty for blank text."""
    segments: list[Segment] = []
    for kind, block in _blocks(text.splitlines()):
        pieces = split_sentences(block) if kind is SegmentKind.PROSE else [block]
        for piece in pieces:
            text = _BULLET.sub("", piece) if kind is SegmentKind.ITEM else piece
            if text.strip():
                segments.append(Segment(text.strip("\n"), kind, len(segments)))
    return segments


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph that stands on one line."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if _ends_sentence(text, start, match):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    before, after = text[start : match.end()], text[match.end() :].lstrip()
    if not after or match.group()[0] in "\u3002\uff01\uff1f":
        return True
    if match.group().startswith("."):
        word = before.rstrip(".\"')]").rpartition(" ")[2].lstrip("(\"'[").lower()
        if word in _ABBREVIATIONS or _INITIALS.search(before.rstrip("\"')]")):
            return False
    if _open_brackets(before):
        return False
    head = after.lstrip("\"'([`*_\u201c\u2018")
    # Docstrings begin sentences with names such as os.path or my_function().
    named = re.match(r"[a-z_]\w*(?:[._(]\w*)+", head) is not None
    return not head[:1].islower() or named


def _open_brackets(text: str) -> bool:
    return text.count("(") > text.count(")") or text.count("[") > text.count("]")


def _blocks(lines: list[str]) -> Iterator[tuple[SegmentKind, str]]:
    """Runs of lines that belong together, each with its kind."""
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.strip():
            index += 1
        elif _FENCE.match(line):
            end = _fence_end(lines, index)
            yield SegmentKind.CODE, "\n".join(lines[index + 1 : end])
            index = end + 1
        elif (heading := _HEADING.match(line)) or _is_underlined(lines, index):
            yield SegmentKind.HEADING, heading.group(1) if heading else line.strip()
            index += 1
        elif _RULE.match(line):
            index += 1
        else:
            kind = _kind_of(line)
            end = _block_end(lines, index, kind)
            yield kind, _join(lines[index:end], kind)
            index = end


def _fence_end(lines: list[str], index: int) -> int:
    for end in range(index + 1, len(lines)):
        if _FENCE.match(lines[end]):
            return end
    return len(lines)


def _is_underlined(lines: list[str], index: int) -> bool:
    """A short title over a line of ``===`` or ``---``."""
    below = lines[index + 1].strip() if index + 1 < len(lines) else ""
    title = lines[index].strip()
    return bool(re.fullmatch(r"([=\-~^])\1{2,}", below)) and bool(re.search(r"\w", title[:80]))


def _kind_of(line: str) -> SegmentKind:
    if _looks_like_code(line):
        return SegmentKind.CODE
    return SegmentKind.ITEM if _ITEM.match(line) else SegmentKind.PROSE


def _looks_like_code(line: str) -> bool:
    if _DOCTEST.match(line) or _CODE_START.match(line) or _ASSIGNMENT.match(line):
        return True
    if _SIGNATURE.match(line) or _COMMENTED.search(line):
        return True
    stripped = line.strip()
    symbols = sum(char in "(){}[]=<>+*/%_;:\"'\\|&" for char in stripped)
    return len(stripped) > 3 and symbols / len(stripped) > 0.3


def _block_end(lines: list[str], start: int, kind: SegmentKind) -> int:
    """One past the last line of the block that starts here."""
    indent = _indent(lines[start])
    doctest = _DOCTEST.match(lines[start]) is not None
    for index in range(start + 1, len(lines)):
        line = lines[index]
        if not line.strip() or _FENCE.match(line) or _HEADING.match(line):
            return index
        if kind is SegmentKind.CODE:
            if not doctest and not _looks_like_code(line) and _indent(line) <= indent:
                return index
        elif _interrupts(lines, index) or (kind is SegmentKind.ITEM and _indent(line) <= indent):
            return index
    return len(lines)


def _interrupts(lines: list[str], index: int) -> bool:
    """Whether this line ends a paragraph without a blank line before it.

    Code is looked for strictly: a wrapped line of prose may hold symbols.
    """
    line = lines[index]
    code = _DOCTEST.match(line) or _SIGNATURE.match(line)
    return bool(code or _ITEM.match(line)) or _is_underlined(lines, index)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _join(lines: list[str], kind: SegmentKind) -> str:
    if kind is SegmentKind.CODE:
        shared = min(_indent(line) for line in lines)
        return "\n".join(line[shared:].rstrip() for line in lines)
    return " ".join(line.strip() for line in lines)
