"""Bounds on what a caller may send, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from llm_node.config import NodeLimits
from ragschema.errors import InvalidInput, PayloadTooLarge
from ragschema.types import ChatMessage, GenerateSpec

_ROLES = ("system", "user", "assistant")


def check_texts(texts: Sequence[str], max_texts: int, max_bytes: int) -> None:
    """Raises PayloadTooLarge for too many texts or too much text."""
    if len(texts) > max_texts:
        raise PayloadTooLarge(
            f"{len(texts)} texts in one call, the limit is {max_texts}",
            field="texts",
            hint="split them over several calls",
        )
    size = _utf8_bytes(texts)
    if size > max_bytes:
        raise PayloadTooLarge(
            f"{size} bytes of text in one call, the limit is {max_bytes}",
            field="texts",
            hint="split them over several calls",
        )


def check_rewrite(
    question: str, history: Sequence[ChatMessage], max_queries: int, limits: NodeLimits
) -> None:
    """Raises InvalidInput or PayloadTooLarge, naming the field."""
    if not question.strip():
        raise InvalidInput("there is no question", field="question")
    if not 1 <= max_queries <= limits.max_queries:
        raise InvalidInput(
            f"{max_queries} queries are asked for",
            field="max_queries",
            hint=f"use 1 to {limits.max_queries}",
        )
    check_generate(GenerateSpec(tuple(history), question, ()), limits)


def check_scan(queries: int, nprobe: int, limits: NodeLimits) -> None:
    """Raises InvalidInput or PayloadTooLarge, naming the field."""
    if not 1 <= nprobe <= limits.max_nprobe:
        raise InvalidInput(
            f"{nprobe} lists are asked for", field="nprobe", hint=f"use 1 to {limits.max_nprobe}"
        )
    if 4 * queries * nprobe > limits.max_scan_reply_bytes:
        raise PayloadTooLarge(
            f"{nprobe} lists of {queries} queries fill {4 * queries * nprobe} bytes",
            field="queries",
            hint="split the queries over several calls",
        )


def check_generate(spec: GenerateSpec, limits: NodeLimits) -> None:
    """Raises InvalidInput or PayloadTooLarge, naming the field."""
    for index, message in enumerate(spec.messages):
        if message.role not in _ROLES:
            raise InvalidInput(
                f"{message.role!r} is no role",
                field=f"messages.{index}.role",
                hint=f"use one of {', '.join(_ROLES)}",
            )
    if not spec.messages and not spec.question:
        raise InvalidInput("there is neither a message nor a question", field="messages")
    _check_count(len(spec.messages), limits.max_messages, "messages")
    _check_count(len(spec.passages), limits.max_passages, "passages")
    _check_count(len(spec.sampling.stop), limits.max_stop, "sampling.stop")
    for index, stop in enumerate(spec.sampling.stop):
        if not 1 <= len(stop) <= limits.max_stop_chars:
            raise InvalidInput(
                f"a stop string has {len(stop)} characters",
                field=f"sampling.stop.{index}",
                hint=f"use 1 to {limits.max_stop_chars}",
            )
    texts = [m.content for m in spec.messages] + [p.text for p in spec.passages]
    texts += [p.title for p in spec.passages] + [spec.question]
    size = _utf8_bytes(texts)
    if size > limits.max_prompt_bytes:
        raise PayloadTooLarge(
            f"the prompt has {size} bytes, the limit is {limits.max_prompt_bytes}",
            field="messages",
            hint="send fewer or shorter passages",
        )


def _check_count(count: int, limit: int, field: str) -> None:
    if count > limit:
        raise PayloadTooLarge(f"{count} entries, the limit is {limit}", field=field)


def _utf8_bytes(texts: Sequence[str]) -> int:
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
