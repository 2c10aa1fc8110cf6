"""The answer of ``/v1/status`` as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.cli.console import printable
from coordinator.cli.replan_view import replan_lines

Json = Mapping[str, Any]


def show_status(console: Console, status: Json) -> None:
    """Health first, then nodes, collections and jobs under way."""
    ready = Text("ready", style="green") if status["ready"] else Text("not ready", style="red")
    head = Text(f"rig {status['name']} {status['version']}, up {status['uptime_s']:.0f} s: ")
    console.print(head + ready)
    for problem in status["problems"]:
        console.print(Text(f"  {printable(str(problem))}", style="yellow"))
    console.print(_nodes(status))
    for node in status["nodes"]:
        if node["error"]:
            text = f"{node['name']}: {printable(str(node['error']))}"
            console.print(Text(text, style="red"))
    engines = [node for node in status["nodes"] if node["detail"].get("engine")]
    if engines:
        console.print(_engines(engines))
    shared = [node for node in status["nodes"] if len(node["detail"].get("devices") or ()) > 1]
    if shared:
        console.print(_devices(shared))
    if status["collections"]:
        console.print(_collections(status))
    else:
        console.print("no collections yet: ragrig ingest PATH --collection NAME")
    for line in replan_lines(status.get("replan")):
        console.print(Text(printable(line)))
    for job in status["jobs"]:
        if job["state"] in ("waiting", "running"):
            console.print(
                f"job {job['id']} on {job['collection']}: {job['state']},"
                f" {job['phase']} {job['done']}/{job['total']}"
            )


def _nodes(status: Json) -> Table:
    table = Table(title="nodes", title_justify="left")
    for column in ("name", "kind", "address", "state", "latency", "holds"):
        table.add_column(column)
    groups = {name: g["group"] for g in status["shard_groups"] for name in g["nodes"]}
    for node in status["nodes"]:
        state = Text("ready", style="green") if node["ready"] else Text("away", style="red")
        latency = "-" if node["latency_ms"] is None else f"{node['latency_ms']:.1f} ms"
        holds = f"shard group {groups[node['name']]}" if node["name"] in groups else _models(node)
        table.add_row(node["name"], node["kind"], node["address"], state, latency, holds)
    return table


def _models(node: Json) -> str:
    """Each model once, with what it is for."""
    roles: dict[str, list[str]] = {}
    for model in node["detail"].get("models") or ():
        known = model if isinstance(model, dict) else {"name": model}
        roles.setdefault(printable(str(known.get("name", "?"))), []).append(known.get("role", "?"))
    return ", ".join(f"{name} ({', '.join(map(str, of))})" for name, of in roles.items())


def _engines(nodes: Sequence[Json]) -> Table:
    table = Table(title="engines", title_justify="left")
    for column in ("node", "sequences", "preempted", "KV in use", "prefix hits", "mean step"):
        table.add_column(column)
    for node in nodes:
        engine = node["detail"]["engine"]
        mean, step_ms = engine["batch_tokens_mean"], engine["step_ms_mean"]
        table.add_row(
            node["name"],
            ", ".join(f"{engine[state]} {state}" for state in ("running", "waiting", "paused")),
            str(engine["preempted_total"]),
            f"{_share(engine['kv_use'])} of {engine['kv_tokens']} tokens",
            _share(engine["prefix_hit_rate"]),
            "-" if mean is None else f"{mean:.1f} tokens, {step_ms:.1f} ms",
        )
    return table


def _devices(nodes: Sequence[Json]) -> Table:
    """Nodes on which roles share a device."""
    table = Table(title="devices", title_justify="left")
    for column in ("node", "device", "roles", "share", "of the time", "units", "mean wait"):
        table.add_column(column)
    for node in nodes:
        for lane in node["detail"]["devices"]:
            wait_ms = lane["wait_ms_mean"]
            table.add_row(
                node["name"],
                printable(str(lane["device"])),
                printable(str(lane["roles"])),
                f"{lane['share']:g}",
                _share(lane["time_share"]),
                str(lane["units_total"]),
                "-" if wait_ms is None else f"{wait_ms:.1f} ms",
            )
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _collections(status: Json) -> Table:
    table = Table(title="collections", title_justify="left")
    for column in ("name", "documents", "chunks", "index", "shards", "generation", "state"):
        table.add_column(column)
    for found in status["collections"]:
        broken = found["error"]
        state = Text(printable(str(broken)), style="red") if broken else Text("ok", style="green")
        index = found["index"]
        if index == "ivfpq":
            index = f"ivfpq, {found['nlist']} lists"
            sampled = found["recall"]["estimate"] if found["recall"] else None
            index += f", recall {sampled:.3f}" if sampled is not None else ""
        cells = (found["documents"], found["rows"], index, found["num_shards"])
        table.add_row(found["name"], *map(_cell, cells), _cell(found["generation"]), state)
    return table


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
