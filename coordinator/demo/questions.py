"""What the demo asks of the standard library's documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoQuestion:
    """One question; ``stream`` asks for server-sent events."""

    text: str
    stream: bool = False


QUESTIONS = (
    DemoQuestion("What does the LRU cache decorator do?"),
    DemoQuestion("Which function finds the n largest elements of an iterable?", stream=True),
    DemoQuestion("How can I create a temporary directory that is removed afterwards?"),
)
