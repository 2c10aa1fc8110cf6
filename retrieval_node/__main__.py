"""``python -m retrieval_node``: serve (the default) or build."""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.errors import InvalidInput
from ragschema.procs import (
    calm_thread_pools,
    exit_with_parent,
    run_command_line,
    setup_logging,
)
from ragschema.wire.serving import LOOPBACK_HOSTS, ListenOptions

if TYPE_CHECKING:
    from retrieval_node.node import RetrievalServicer

log = logging.getLogger("retrieval_node")

app = typer.Typer(
    help="A retrieval node: scans the shards of collections. Serves when no command is given.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


class BackendName(enum.StrEnum):
    """Choices of --backend."""

    FPGA = "fpga"
    FAISS = "faiss"


class DeviceName(enum.StrEnum):
    """Choices of --device."""

    EMULATOR = "emulator"


class LogLevel(enum.StrEnum):
    """Choices of --log-level."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Data directory; collections lie inside it.")],
    name: Annotated[str, typer.Option(help="Name of this node in the rig file.")] = "ret-0",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 0,
    backend: Annotated[BackendName, typer.Option(help="Who scans.")] = BackendName.FPGA,
    device: Annotated[
        DeviceName, typer.Option(help="Device behind the fpga backend.")
    ] = DeviceName.EMULATOR,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Searches at once.")] = 1,
    max_waiting: Annotated[
        int, typer.Option(min=1, max=65536, help="Searches that may queue; more are refused.")
    ] = 256,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once the node serves, with its address.")
    ] = None,
    parent_pid: Annotated[
        int | None, typer.Option(help="End when this process, the parent, ends.")
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="Least severe messages to log.")
    ] = LogLevel.INFO,
) -> None:
    """Serve searches over gRPC until SIGTERM or Ctrl-C."""
    setup_logging(name, log_level.value)
    calm_thread_pools(1)
    listen = ListenOptions(
        name=name, host=host, port=port, ready_file=ready_file, parent_pid=parent_pid
    )
    _serve(listen, data, backend.value, device.value, threads, max_waiting)


@app.command()
def build(
    spec: Annotated[Path, typer.Argument(help="JSON file that says what to build.")],
) -> None:
    """Build one segment of a collection; JSON lines on standard output."""
    from retrieval_node.build_command import run_build

    def emit(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    raise typer.Exit(run_build(spec, emit))


def _serve(
    listen: ListenOptions, data: Path, backend: str, device: str, threads: int, max_waiting: int
) -> None:
    if listen.parent_pid is not None:
        # Early: compiling and loading take seconds in which a parent may go.
        exit_with_parent(listen.parent_pid)
    if data.exists() and not data.is_dir():
        raise InvalidInput(
            f"{data} is not a directory", field="--data", hint="name a rig's data directory"
        )
    if listen.host not in LOOPBACK_HOSTS:
        log.warning(
            "%s is reachable from outside this machine; nodes trust whoever connects, so keep"
            " their ports inside a private network",
            listen.host,
        )
    # Imported here: the thread settings must come before faiss and numba.
    from retrieval_node.backends.registry import open_backend
    from retrieval_node.node import NodeConfig, RetrievalServicer, warm_up

    log.info("preparing kernels; the first start on a machine compiles them")
    warm_up()
    config = NodeConfig(
        name=listen.name,
        data_dir=data.resolve(),
        threads=threads,
        max_waiting=max_waiting,
        max_message_bytes=listen.max_message_bytes,
    )
    asyncio.run(_run(listen, RetrievalServicer(config, open_backend(backend, device, threads))))


async def _run(listen: ListenOptions, servicer: RetrievalServicer) -> None:
    from ragschema.wire import retrieval_pb2_grpc, serving
    from retrieval_node.node import SERVICE_NAME

    try:
        await serving.serve(
            listen,
            SERVICE_NAME,
            lambda server: retrieval_pb2_grpc.add_RetrievalNodeServicer_to_server(servicer, server),
        )
    finally:
        servicer.close()


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; ``serve`` may be left out."""
    run_command_line(app, "python -m retrieval_node", arguments)


if __name__ == "__main__":
    main()
