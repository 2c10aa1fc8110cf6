"""The server end every node shares: bootstrapping, health, reflection, errors.

A node's servicer raises ``RagrigError``; the interceptor here turns it into a
status and an ErrorDetail. Nothing else leaves a node, above all no stack trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ragschema import errors as e
from ragschema import procs
from ragschema.status import status_of
from ragschema.version import PROTOCOL_VERSION, SOFTWARE_VERSION
from ragschema.wire import common_pb2
from ragschema.wire.convert import (
    ERROR_METADATA_KEY,
    TRACE_METADATA_KEY,
    error_to_wire,
    wire_text,
)

log = logging.getLogger(__name__)

DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


@dataclass(frozen=True)
class ListenOptions:
    """Where a node listens and whom it obeys.

    Attributes:
        port: 0 lets the system choose; the ready file then tells which.
        ready_file: written once the node serves.
        parent_pid: the supervisor to die with, None for a node on its own.
        drain_s: how long calls in flight may go on after SIGTERM.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    ready_file: Path | None = None
    parent_pid: int | None = None
    drain_s: float = 2.0


def trace_id_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's trace id, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == TRACE_METADATA_KEY:
            return value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return secrets.token_hex(8)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: e.RagrigError) -> None:
    error.trace_id = error.trace_id or trace_id_of(context)
    trailers = ((ERROR_METADATA_KEY, error_to_wire(error).SerializeToString()),)
    # The status text travels percent-encoded, up to three bytes for one.
    details = wire_text(str(error), 500)
    await context.abort(status_of(error).grpc, details, trailing_metadata=trailers)


def _hide(error: Exception) -> e.InternalError:
    log.exception("defect in a handler", exc_info=error)
    return e.InternalError(
        "the node failed on this request",
        hint="the node's log has the details under this trace id",
    )


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Maps the error tree onto gRPC status; for every kind of call but streamed
    requests with a single reply, which ragrig does not have."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/ragrig."):
            return handler
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _guard_stream(handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _guard_unary(call: Any) -> Any:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await call(request, context)
        except e.RagrigError as error:
            await _abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  the last line before the wire
            await _abort(context, _hide(error))

    return guarded


def _guard_stream(call: Any) -> Any:
    async def guarded(
        request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(call(request, context)) as events:
                async for event in events:
                    yield event
        except e.RagrigError as error:
            await _abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  the last line before the wire
            await _abort(context, _hide(error))

    return guarded


class Greeter:
    """Answers Hello: refuses peers this node cannot serve.

    Args:
        kind: "llm" or "retrieval".
        capabilities: what this node can do.
    """

    def __init__(self, name: str, kind: str, capabilities: Iterable[str]) -> None:
        self._name = name
        self._kind = kind
        self._capabilities = tuple(sorted(capabilities))
        self._instance_id = secrets.token_hex(8)
        self._started_s = time.monotonic()

    def uptime_s(self) -> float:
        return time.monotonic() - self._started_s

    def hello(self, request: common_pb2.HelloRequest) -> common_pb2.HelloReply:
        """Raises VersionMismatch when protocol or capabilities do not fit."""
        if request.protocol_version != PROTOCOL_VERSION:
            raise e.VersionMismatch(
                f"peer {request.peer_name!r} speaks protocol {request.protocol_version},"
                f" {self._kind} node {self._name!r} speaks {PROTOCOL_VERSION}",
                field="protocol_version",
                hint="run the same ragrig release on every node",
            )
        missing = sorted(set(request.required_capabilities) - set(self._capabilities))
        if missing:
            raise e.VersionMismatch(
                f"{self._kind} node {self._name!r} lacks {', '.join(missing)}",
                field="required_capabilities",
                hint=f"it offers {', '.join(self._capabilities)}; change the rig file",
            )
        return common_pb2.HelloReply(
            protocol_version=PROTOCOL_VERSION,
            software_version=SOFTWARE_VERSION,
            node_name=self._name,
            node_kind=self._kind,
            capabilities=self._capabilities,
            instance_id=self._instance_id,
        )


def format_address(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


async def serve(
    options: ListenOptions,
    service_name: str,
    register: Callable[[grpc.aio.Server], None],
    drain: Callable[[], None] | None = None,
) -> None:
    """Runs a node's server until SIGTERM or SIGINT, then drains it.

    Args:
        service_name: full protobuf name, for health and reflection.
        register: adds the node's servicer to the server.
        drain: called when the server is to end, to let long streams end too.

    Raises:
        Unavailable: the port is taken.
    """
    if options.parent_pid is not None:
        procs.exit_with_parent(options.parent_pid)
    server = _new_server(options)
    register(server)
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection(
        (service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    port = _bind(server, options)
    await server.start()
    for service in ("", service_name):
        await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    address = format_address(options.host, port)
    log.info("serving %s on %s", service_name, address)
    if options.ready_file is not None:
        procs.announce(options.ready_file, options.name, address)
    await _until_signalled()
    await health_servicer.enter_graceful_shutdown()
    if drain is not None:
        drain()
    await server.stop(options.drain_s)


def _new_server(options: ListenOptions) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=(ErrorInterceptor(),),
        options=(
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", options.max_message_bytes),
            # Without this a second node could share the port unnoticed.
            ("grpc.so_reuseport", 0),
        ),
    )


def _bind(server: grpc.aio.Server, options: ListenOptions) -> int:
    address = format_address(options.host, options.port)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        port = 0
        cause: RuntimeError | None = error
    else:
        cause = None
    if port == 0:
        raise e.Unavailable(
            f"cannot listen on {address}",
            field="port",
            hint="another process has it; choose another port, or 0 for any free one",
        ) from cause
    return port


async def _until_signalled() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
