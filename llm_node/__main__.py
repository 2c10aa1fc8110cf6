"""Command line of an LLM node: ``python -m llm_node [serve] --name llm-0 ...``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_node.config import LlmOptions
from llm_node.engine_options import parse_engine
from llm_node.libraries import prepare_environment
from ragschema import procs
from ragschema.errors import InvalidInput
from ragschema.types import Role
from ragschema.wire.serving import ListenOptions

app = typer.Typer(
    name="llm_node",
    help="An LLM node: embeds texts and generates answers behind gRPC.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _node() -> None:
    """An LLM node: embeds texts and generates answers behind gRPC."""


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
    name: Annotated[str, typer.Option(help="Name in messages and in status.")] = "llm-0",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 0,
    roles: Annotated[
        str, typer.Option(help="embed, generate, prefill, decode; several with commas.")
    ] = "embed,generate",
    embedder: Annotated[
        str, typer.Option(help="minilm, or the directory of a sentence-embedding model.")
    ] = "minilm",
    generator: Annotated[
        str, typer.Option(help="extractive, hf:DIR or openai:URL[#MODEL].")
    ] = "extractive",
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the upstream server's API key.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads of a model.")] = 1,
    kv_mib: Annotated[
        int | None, typer.Option(min=1, help="KV cache in MiB; default: a share of free memory.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="Of hf:DIR, such as step_tokens=256,dtype=bfloat16; see docs/engine.md."),
    ] = "",
    max_running: Annotated[
        int, typer.Option(min=1, max=1024, help="Generations under way at once.")
    ] = 8,
    max_waiting: Annotated[
        int, typer.Option(min=1, max=65536, help="Requests of a kind that may wait.")
    ] = 128,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written with the address once the node serves.")
    ] = None,
    parent_pid: Annotated[int | None, typer.Option(help="Stop when this process ends.")] = None,
    log_level: Annotated[
        str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", metavar="LEVEL")
    ] = "INFO",
) -> None:
    """Loads the models, then serves until SIGTERM or Ctrl-C."""
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise InvalidInput(
            f"{log_level!r} is no level",
            field="--log-level",
            hint="use DEBUG, INFO, WARNING, ERROR",
        )
    procs.setup_logging(name, log_level.upper())
    options = LlmOptions(
        name=name,
        roles=_roles(roles),
        embedder=embedder,
        generator=generator,
        api_key_env=api_key_env,
        threads=threads,
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


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; ``serve`` may be left out."""
    procs.run_command_line(app, "python -m llm_node", arguments)


if __name__ == "__main__":
    main()
