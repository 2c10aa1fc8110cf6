"""``ragrig search``: passages, without an answer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from coordinator.cli import options


def search(
    text: Annotated[str, typer.Argument(help="What to look for, in quotes.")],
    collection: options.Collection = None,
    k: options.K = 10,
    filter_: options.Filter = None,
    recall: options.Recall = None,
    as_json: options.Json = False,
    url: options.Url = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
    api_key_file: options.ApiKeyFile = None,
) -> None:
    """Find the passages nearest to a text."""
    from coordinator.cli.collection import choose_collection
    from coordinator.cli.conditions import parse_filters
    from coordinator.cli.console import stdout
    from coordinator.cli.render import show_coverage, show_passages
    from coordinator.cli.rest import RestClient
    from coordinator.cli.target import find_target

    filters = parse_filters(filter_ or ())
    with RestClient(find_target(url, config, data_dir, api_key_file)) as client:
        name = choose_collection(client, collection)
        body = {"collection": name, "text": text, "k": k, "filters": filters}
        if recall is not None:
            body["recall"] = recall
        reply = client.post("/v1/search", body)
    if as_json:
        print(json.dumps(reply, ensure_ascii=False))
        return
    console = stdout()
    show_passages(console, reply["hits"])
    if not reply["hits"]:
        console.print(f"nothing found in {name}")
    show_coverage(console, reply["coverage"])
