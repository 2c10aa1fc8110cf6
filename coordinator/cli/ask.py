"""``ragrig ask``: a question, an answer with citations."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coordinator.cli import options


def ask(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    collection: options.Collection = None,
    k: options.K = 5,
    filter_: options.Filter = None,
    recall: options.Recall = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Longest answer, in tokens.", min=1, max=32768)
    ] = 256,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Show the answer while it is made.")
    ] = True,
    url: options.Url = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
    api_key_file: options.ApiKeyFile = None,
) -> None:
    """Ask a question; the answer comes with the passages it rests on."""
    from coordinator.cli.answer import show_answer
    from coordinator.cli.collection import choose_collection
    from coordinator.cli.conditions import parse_filters
    from coordinator.cli.console import stdout
    from coordinator.cli.rest import RestClient
    from coordinator.cli.target import find_target

    filters = parse_filters(filter_ or ())
    with RestClient(find_target(url, config, data_dir, api_key_file)) as client:
        body: dict[str, Any] = {
            "collection": choose_collection(client, collection),
            "question": question,
            "k": k,
            "filters": filters,
            "max_tokens": max_tokens,
            "stream": stream,
        }
        if recall is not None:
            body["recall"] = recall
        show_answer(client, body, stdout())
