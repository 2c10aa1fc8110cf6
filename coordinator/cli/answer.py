"""A question's way over REST onto the terminal, streamed or whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from coordinator.cli.console import printable, write_piece
from coordinator.cli.render import show_coverage, show_passages
from coordinator.cli.rest import RestClient
from ragschema.errors import UpstreamError

Json = Mapping[str, Any]
_PATH = "/v1/query"


def show_answer(client: RestClient, body: Json, console: Console) -> Json:
    """Asks, prints answer and citations, and returns the whole reply."""
    reply = _streamed(client, body) if body["stream"] else _whole(client, body, console)
    citations = reply["citations"]
    cited = [c for c in citations if c["cited"]]
    console.print()
    if citations:
        title = "Citations" if cited else "The answer cites nothing; it was given these passages"
        console.print(Text(title, style="bold"))
        show_passages(console, cited or citations)
    show_coverage(console, reply["coverage"])
    return reply


def _whole(client: RestClient, body: Json, console: Console) -> Json:
    reply = client.post(_PATH, body)
    console.print(Text(printable(str(reply["answer"]))))
    return reply


def _streamed(client: RestClient, body: Json) -> Json:
    for event in client.stream(_PATH, body):
        if event.event == "token":
            write_piece(str(event.data["text"]))
        elif event.event == "done":
            write_piece("\n")
            return event.data
    raise UpstreamError("the answer broke off", hint="see the coordinator's log")
