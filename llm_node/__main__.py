"""Command line of an LLM node: ``python -m llm_node [serve] --name llm-0 ...``."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from llm_node import arguments
from llm_node.config import EmbedDtype, LlmOptions
from llm_node.device.lanes import parse_shares
from llm_node.engine_options import parse_engine
from llm_node.libraries import prepare_environment
from ragschema import procs
from ragschema.errors import InvalidInput
from ragschema.types import Role
from ragschema.wire.serving import ListenOptions

app = typer.Typer(
    name="llm_node",
    help="An LLM node: embeds texts, ranks passages and generates answers behind gRPC.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _node() -> None:
    """An LLM node: embeds texts, ranks passages and generates answers behind gRPC."""


def _roles(text: str) -> tuple[Role, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in tuple(Role):
            raise InvalidInput(
                f"{name!r} is no role",
                field="--roles",
                hint=f"use some of {', '.join(Role)}, with commas between",
            )
    if not names:
        raise InvalidInput("no role is named", field="--roles", hint="use embed,generate")
    return tuple(role for role in Role if role in names)


@app.command()
def serve(
    name: arguments.Name = "llm-0",
    host: arguments.Host = "127.0.0.1",
    port: arguments.Port = 0,
    roles: arguments.Roles = "embed,generate",
    embedder: arguments.EmbedderRef = "minilm",
    embedder_dtype: arguments.EmbedderDtype = EmbedDtype.FLOAT32,
    generator: arguments.GeneratorRef = "extractive",
    reranker: arguments.RerankerRef = None,
    rewrite_template: arguments.RewriteTemplate = None,
    rewrite_tokens: arguments.RewriteTokens = 128,
    data: arguments.DataDir = None,
    api_key_env: arguments.ApiKeyEnv = None,
    threads: arguments.Threads = 1,
    shares: arguments.Shares = "",
    kv_mib: arguments.KvMib = None,
    engine: arguments.EngineText = "",
    max_running: arguments.MaxRunning = 8,
    max_waiting: arguments.MaxWaiting = 128,
    ready_file: arguments.ReadyFile = None,
    parent_pid: arguments.ParentPid = None,
    log_level: arguments.LogLevel = "INFO",
) -> None:
    """Loads the models, then serves until SIGTERM or Ctrl-C."""
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise InvalidInput(
            f"{log_level!r} is no level",
            field="--log-level",
            hint="use DEBUG, INFO, WARNING, ERROR",
        )
    procs.setup_logging(name, log_level.upper())
    played = _roles(roles)
    options = LlmOptions(
        name=name,
        roles=played,
        embedder=embedder,
        embedder_dtype=embedder_dtype,
        generator=generator,
        reranker=reranker,
        rewrite_template=rewrite_template,
        rewrite_tokens=rewrite_tokens,
        data_dir=data,
        api_key_env=api_key_env,
        threads=threads,
        shares=parse_shares(shares, played),
        engine=parse_engine(engine, kv_mib),
        max_running=max_running,
        max_waiting=max_waiting,
    )
    listen = ListenOptions(name, host, port, ready_file=ready_file, parent_pid=parent_pid)
    asyncio.run(_run(options, listen))


async def _run(options: LlmOptions, listen: ListenOptions) -> None:
    prepare_environment(options.threads)
    from llm_node.node import load_node
    from llm_node.service import SERVICE_NAME, LlmService
    from llm_node.token_services import TokenServices
    from ragschema.wire import llm_pb2_grpc, serving

    node = await load_node(options)
    service = LlmService(node)
    others = TokenServices(node, service.generations)

    def register(server: Any) -> None:
        llm_pb2_grpc.add_LlmNodeServicer_to_server(service, server)
        others.register(server)

    try:
        await serving.serve(listen, SERVICE_NAME, register)
    finally:
        await others.close()
        await service.close()


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; ``serve`` may be left out."""
    procs.run_command_line(app, "python -m llm_node", argv)


if __name__ == "__main__":
    main()
