"""Writes a chat as the text a language model was trained to continue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragschema.errors import InvalidInput
from ragschema.types import ChatMessage

#: A model without a chat template would go on and invent the user's next turn.
PLAIN_STOPS = ("\nUser:", "\nSystem:")
_LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}


def plain_prompt(messages: Sequence[ChatMessage]) -> str:
    """Turns with their role in front, ending where the assistant speaks."""
    turns = [f"{_LABELS[m.role]}: {m.content.strip()}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"])


def templated_prompt(tokenizer: Any, messages: Sequence[ChatMessage]) -> str:
    """The tokenizer's own chat template.

    Some templates refuse a system turn; its text then opens the first user turn.

    Raises:
        InvalidInput: the template refuses these turns.
    """
    from jinja2.exceptions import TemplateError

    try:
        return _apply(tokenizer, messages)
    except TemplateError as error:
        folded = _fold_system(messages)
        if folded == list(messages):
            raise _refused(error) from error
        try:
            return _apply(tokenizer, folded)
        except TemplateError as second:
            raise _refused(second) from second


def _apply(tokenizer: Any, messages: Sequence[ChatMessage]) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


def _refused(error: Exception) -> InvalidInput:
    return InvalidInput(
        f"the model's chat template refuses these turns: {error}",
        field="messages",
        hint="alternate user and assistant turns and end with the user",
    )


def _fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    others = [m for m in messages if m.role != "system"]
    if not system or not others or others[0].role != "user":
        return list(messages)
    first = ChatMessage("user", f"{system}\n\n{others[0].content}")
    return [first, *others[1:]]
