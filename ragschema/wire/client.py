"""The client end: one channel to one node, with typed errors and deadlines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from ragschema import errors as e
from ragschema.status import error_class_of
from ragschema.types import CallContext
from ragschema.version import PROTOCOL_VERSION, SOFTWARE_VERSION
from ragschema.wire import common_pb2, llm_pb2_grpc, retrieval_pb2_grpc
from ragschema.wire.convert import ERROR_METADATA_KEY, TRACE_METADATA_KEY, error_from_wire
from ragschema.wire.serving import DEFAULT_MAX_MESSAGE_BYTES

Reply = TypeVar("Reply")


def open_channel(
    address: str, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
) -> grpc.aio.Channel:
    """An insecure channel that reconnects quickly after a node comes back."""
    return grpc.aio.insecure_channel(
        address,
        options=(
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A channel per client object: pooled sub-channels would carry a
            # dead connection's back-off over to a fresh one.
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )


def typed_error(error: grpc.RpcError, node: str, trace_id: str | None) -> e.RagrigError:
    """The error a node raised, or the nearest class for a bare status."""
    trailers = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in trailers:
        if key == ERROR_METADATA_KEY and isinstance(value, bytes):
            # A garbled detail still leaves the status to go by.
            with contextlib.suppress(DecodeError):
                typed = error_from_wire(common_pb2.ErrorDetail.FromString(value))
                typed.trace_id = typed.trace_id or trace_id
                return typed
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = error.details() if hasattr(error, "details") else str(error)
    cls = error_class_of(code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (details or ""):
        cls = e.PayloadTooLarge  # gRPC's own size limit; trying again would not help
    hint = None
    if cls is e.Unavailable:
        hint = "the node is away; try again soon, /readyz shows the state of every node"
    return cls(f"node {node}: {details or code.name.lower()}", hint=hint, trace_id=trace_id)


class NodeClient:
    """Calls to one node; base of the LLM and the retrieval client.

    Args:
        name: the rig file's name for the node, used in messages.
        address: host:port.
    """

    def __init__(
        self,
        name: str,
        address: str,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self.name = name
        self.address = address
        self.channel = open_channel(address, max_message_bytes)

    async def call(self, method: Callable[..., Any], request: Any, context: CallContext) -> Any:
        """One unary call under the context's deadline.

        Raises:
            RagrigError: the node's own error, rebuilt; or the nearest class.
        """
        try:
            return await method(
                request,
                timeout=context.remaining_s(),
                metadata=((TRACE_METADATA_KEY, context.trace_id),),
            )
        except grpc.RpcError as error:
            raise typed_error(error, self.name, context.trace_id) from error

    async def stream(
        self, method: Callable[..., Any], request: Any, context: CallContext
    ) -> AsyncIterator[Any]:
        """A streamed reply; leaving the iteration cancels the call at the node."""
        call = method(
            request,
            timeout=context.remaining_s(),
            metadata=((TRACE_METADATA_KEY, context.trace_id),),
        )
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise typed_error(error, self.name, context.trace_id) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            await self.channel.close(None)


async def say_hello(
    client: NodeClient,
    stub: llm_pb2_grpc.LlmNodeAsyncStub | retrieval_pb2_grpc.RetrievalNodeAsyncStub,
    context: CallContext,
    required: tuple[str, ...] = (),
) -> common_pb2.HelloReply:
    """Version and capability exchange; refuses a peer of another protocol.

    Raises:
        VersionMismatch: either side does not accept the other.
    """
    request = common_pb2.HelloRequest(
        protocol_version=PROTOCOL_VERSION,
        software_version=SOFTWARE_VERSION,
        peer_name="coordinator",
        required_capabilities=required,
    )
    reply: common_pb2.HelloReply = await client.call(stub.Hello, request, context)
    if reply.protocol_version != PROTOCOL_VERSION:
        raise e.VersionMismatch(
            f"node {client.name} speaks protocol {reply.protocol_version},"
            f" this coordinator speaks {PROTOCOL_VERSION}",
            hint="run the same ragrig release on every node",
        )
    return reply
