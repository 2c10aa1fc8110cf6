"""``python -m retrieval_node``: serve (the default), build or work on an index."""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
from dataclasses import dataclass
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
from retrieval_node.coalesce import CoalesceLimits
from retrieval_node.index_commands import with_index_commands
from retrieval_node.placement import check_cpus, parse_cpus, stay_on_node

if TYPE_CHECKING:
    from retrieval_node.backends.base import Backend
    from retrieval_node.node import RetrievalServicer
    from retrieval_node.shard import Memory

log = logging.getLogger("retrieval_node")

app = with_index_commands(
    typer.Typer(
        help="A retrieval node: scans the shards of collections. Serves when no command is given.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
)


class BackendName(enum.StrEnum):
    """Choices of --backend."""

    FPGA = "fpga"
    SIMD = "simd"
    FAISS = "faiss"
    FAISS_GPU = "faiss-gpu"


class ModeName(enum.StrEnum):
    """Choices of --mode."""

    FAST = "fast"
    CONTRACT16 = "contract16"


class TablesName(enum.StrEnum):
    """Choices of --tables."""

    HOST = "host"
    CARD = "card"


class MemoryName(enum.StrEnum):
    """Choices of --memory."""

    MAP = "map"
    HUGE = "huge"


class LogLevel(enum.StrEnum):
    """Choices of --log-level."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


Device = Annotated[
    str,
    typer.Option(
        help="Behind the fpga backend: emulator, verilator (the RTL itself), or pynq:FILE.xclbin."
    ),
]


Mode = Annotated[
    ModeName | None,
    typer.Option(help="Of the simd backend: fast (its default), or the FPGA's bits."),
]
Tables = Annotated[
    TablesName | None,
    typer.Option(help="Who makes the card's tables, or how contract16 does: host or card."),
]


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Data directory; collections lie inside it.")],
    name: Annotated[str, typer.Option(help="Name of this node in the rig file.")] = "ret-0",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 0,
    backend: Annotated[BackendName, typer.Option(help="Who scans.")] = BackendName.FPGA,
    device: Device = "emulator",
    mode: Mode = None,
    tables: Tables = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads of a scan.")] = 1,
    cpus: Annotated[
        str | None, typer.Option(help="Pin the scan's threads to these, such as 0-3,6.")
    ] = None,
    numa_node: Annotated[
        int | None, typer.Option(min=0, max=1023, help="Keep process and memory on this node.")
    ] = None,
    memory: Annotated[
        MemoryName, typer.Option(help="Map shard files, or copy them into huge pages.")
    ] = MemoryName.MAP,
    coalesce_max_batch: Annotated[
        int, typer.Option(min=1, max=65536, help="Queries of one kernel call.")
    ] = 256,
    coalesce_max_wait_us: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="How long an idle node waits for company."),
    ] = 0,
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
    scan = ScanOptions(
        backend=backend.value,
        device=device,
        mode=None if mode is None else mode.value,
        tables=None if tables is None else tables.value,
        threads=threads,
        cpus=() if cpus is None else parse_cpus(cpus),
        numa_node=numa_node,
        memory=memory.value,
    )
    coalesce = CoalesceLimits(coalesce_max_batch, coalesce_max_wait_us)
    _serve(listen, scan, data, max_waiting, coalesce)


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


@dataclass(frozen=True)
class ScanOptions:
    """Who scans, and where.

    Raises:
        InvalidInput: options that do not go together.
    """

    backend: str
    device: str
    mode: str | None
    tables: str | None
    threads: int
    cpus: tuple[int, ...]
    numa_node: int | None
    memory: Memory

    def __post_init__(self) -> None:
        if self.mode is not None and self.backend != BackendName.SIMD:
            raise InvalidInput(
                f"the {self.backend} backend has no mode {self.mode!r}",
                field="--mode",
                hint="leave it out, or use --backend simd",
            )
        contract = self.backend == BackendName.FPGA or self.mode == ModeName.CONTRACT16
        if self.tables is not None and not contract:
            raise InvalidInput(
                f"the {self.backend} backend has no integer tables in this mode",
                field="--tables",
                hint="leave it out, or use --backend fpga, or simd with --mode contract16",
            )
        if self.cpus and self.backend != BackendName.SIMD:
            raise InvalidInput(
                f"the {self.backend} backend does not pin its threads",
                field="--cpus",
                hint="leave it out, or use --backend simd",
            )

    @property
    def workers(self) -> int:
        """Kernel calls at once: the simd backend spreads each over all threads."""
        return 1 if self.backend == BackendName.SIMD else self.threads


def _serve(
    listen: ListenOptions, scan: ScanOptions, data: Path, max_waiting: int,
    coalesce: CoalesceLimits,
) -> None:  # fmt: skip
    if listen.parent_pid is not None:
        # Early: loading takes seconds in which a parent may go.
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
    # Before any thread is started: all of them inherit the affinity.
    if scan.numa_node is not None:
        stay_on_node(scan.numa_node)
    check_cpus(scan.cpus)
    # Imported here: the thread settings must come before faiss.
    from retrieval_node.node import NodeConfig, RetrievalServicer

    config = NodeConfig(
        name=listen.name,
        data_dir=data.resolve(),
        backend=scan.backend,
        workers=scan.workers,
        max_waiting=max_waiting,
        max_message_bytes=listen.max_message_bytes,
        coalesce=coalesce,
        # A search's own thread works as one of the backend's, which pins the others.
        cpu=scan.cpus[0] if scan.cpus else None,
        memory=scan.memory,
    )
    asyncio.run(_run(listen, RetrievalServicer(config, _open(scan))))


def _open(scan: ScanOptions) -> Backend:
    from retrieval_node.backends.registry import open_backend

    given = {} if scan.mode is None else {"mode": scan.mode}
    if scan.tables is not None:
        given["tables"] = scan.tables
    return open_backend(
        scan.backend, device=scan.device, threads=scan.threads, cpus=scan.cpus, **given
    )


async def _run(listen: ListenOptions, servicer: RetrievalServicer) -> None:
    from ragschema.wire import serving
    from retrieval_node.node import SERVICE_NAME

    try:
        await serving.serve(listen, SERVICE_NAME, servicer.register, servicer.drain)
    finally:
        servicer.close()


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; ``serve`` may be left out."""
    run_command_line(app, "python -m retrieval_node", arguments)


if __name__ == "__main__":
    main()
