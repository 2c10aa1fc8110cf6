"""``ragrig status``: nodes, shards, collections, health."""

from __future__ import annotations

import json

import typer

from coordinator.cli import options


def status(
    as_json: options.Json = False,
    url: options.Url = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
    api_key_file: options.ApiKeyFile = None,
) -> None:
    """Show nodes, shards, collections and health; exit with 1 when not ready."""
    from coordinator.cli.console import stdout
    from coordinator.cli.rest import RestClient
    from coordinator.cli.status_view import show_status
    from coordinator.cli.target import find_target

    with RestClient(find_target(url, config, data_dir, api_key_file)) as client:
        reply = client.get("/v1/status")
    if as_json:
        print(json.dumps(reply, ensure_ascii=False))
    else:
        show_status(stdout(), reply)
    if not reply["ready"]:
        raise typer.Exit(1)
