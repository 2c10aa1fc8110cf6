"""Command line of the coordinator: ``python -m coordinator [serve] --rig rig.resolved.yaml``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.auth import ApiKey, check_listen, load_api_key
from coordinator.replan.settings import ReplanSettings, read_settings
from ragschema import procs
from ragschema.errors import InvalidInput
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig, load_rig

if TYPE_CHECKING:
    from coordinator.rest.serving import Listener
    from coordinator.runtime import Runtime

log = logging.getLogger("coordinator")

_NAME = "coordinator"
_DRAIN_S = 5
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

app = typer.Typer(
    name=_NAME,
    help="The coordinator: takes REST requests and speaks gRPC to the nodes of a rig.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True)
class ServeOptions:
    """What ``serve`` was told.

    Attributes:
        ready_file: written with the address once requests are accepted.
        replan: how to watch the load; None: not at all.
    """

    rig: RigConfig
    rig_file: Path
    api_key: ApiKey | None
    ready_file: Path | None
    replan: ReplanSettings | None = None


@app.callback()
def _node() -> None:
    """The coordinator: takes REST requests and speaks gRPC to the nodes of a rig."""


@app.command()
def serve(
    rig: Annotated[Path, typer.Option(help="Rig file in which every node has an address.")],
    ready_file: Annotated[
        Path | None, typer.Option(help="Written with the address once requests are accepted.")
    ] = None,
    parent_pid: Annotated[int | None, typer.Option(help="Stop when this process ends.")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key clients must send; needed beyond loopback."),
    ] = None,
    replan: Annotated[
        Path | None,
        typer.Option(help="Settings of live re-planning, as ragrig up writes them."),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", metavar="LEVEL")
    ] = "INFO",
) -> None:
    """Connects to the nodes, then serves until SIGTERM or Ctrl-C."""
    if log_level.upper() not in _LEVELS:
        raise InvalidInput(
            f"{log_level!r} is no level", field="--log-level", hint=f"use {', '.join(_LEVELS)}"
        )
    procs.setup_logging(_NAME, log_level.upper())
    procs.calm_thread_pools(1)
    # Jobs are started by fork and exec, which gRPC's own fork handlers crash
    # while a stream to a node is open.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    if parent_pid is not None:
        procs.exit_with_parent(parent_pid)
    options = _checked(rig, api_key_file, ready_file)
    if replan is not None:
        options = replace(options, replan=read_settings(replan))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options))


def _checked(rig_file: Path, api_key_file: Path | None, ready_file: Path | None) -> ServeOptions:
    config = load_rig(rig_file)
    nodes: list[LlmNodeConfig | RetrievalNodeConfig] = [*config.llm_nodes, *config.retrieval_nodes]
    for node in nodes:
        if not node.address:
            raise InvalidInput(
                f"{rig_file}: the node {node.name!r} has no address",
                field="address",
                hint="`ragrig up -c FILE` starts nodes and fills addresses in",
            )
    named = config.coordinator.api_key_file
    key_file = api_key_file or (Path(named) if named else None)
    key = load_api_key(key_file) if key_file else None
    check_listen(config.coordinator.host, key)
    return ServeOptions(config, rig_file, key, ready_file)


async def _run(options: ServeOptions) -> None:
    """Binds, connects to the nodes, serves; ends everything in reverse on a signal."""
    from coordinator.following import following
    from coordinator.replan.live import replanned
    from coordinator.rest.serving import bind
    from coordinator.runtime import Runtime

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    coordinator = options.rig.coordinator
    listener = bind(coordinator.host, coordinator.port)
    with contextlib.closing(listener.socket):
        runtime = await _unless_stopped(Runtime.start(options.rig), stop)
        if runtime is None:
            return
        try:
            async with (
                following(runtime, options.rig_file),
                replanned(runtime, options.replan),
            ):
                await _serve(options, runtime, listener, stop)
        finally:
            await runtime.stop()
    log.info("stopped")


async def _unless_stopped(
    starting: Coroutine[Any, Any, Runtime], stop: asyncio.Event
) -> Runtime | None:
    start = asyncio.ensure_future(starting)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((start, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if start.done():
        return start.result()
    start.cancel()
    await asyncio.wait((start,))
    return None


async def _serve(
    options: ServeOptions, runtime: Runtime, listener: Listener, stop: asyncio.Event
) -> None:
    from coordinator.jobs.runner import JobOptions, JobRunner
    from coordinator.jobs.spool import Spool
    from coordinator.rest.app import create_app
    from coordinator.rest.refresh import serve_latest
    from coordinator.rest.serving import Server

    limits = options.rig.coordinator.limits
    spool = Spool(Path(options.rig.data_dir) / "run" / "spool")
    jobs = JobRunner(
        JobOptions(max_waiting=limits.max_jobs_waiting),
        spool,
        partial(serve_latest, runtime.catalog),
    )
    await jobs.start()

    def ready() -> None:
        log.info("serving on http://%s", listener.address)
        if options.ready_file is not None:
            procs.announce(options.ready_file, _NAME, listener.address)

    server = Server(create_app(runtime, jobs, options.api_key), _DRAIN_S, ready)

    async def end_on_signal() -> None:
        await stop.wait()
        server.should_exit = True

    _calm_collector()
    ending = asyncio.ensure_future(end_on_signal())
    try:
        await server.serve(sockets=[listener.socket])
    finally:
        ending.cancel()
        await jobs.stop()


def _calm_collector() -> None:
    """What was loaded lives as long as the process: no collection need look at it.

    A request makes some hundred objects and hardly a cycle, so collections may
    also be rarer than Python's defaults make them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; ``serve`` may be left out."""
    procs.run_command_line(app, "python -m coordinator", arguments)


if __name__ == "__main__":
    main()
