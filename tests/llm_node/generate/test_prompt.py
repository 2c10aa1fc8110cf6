from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llm_node.generate.prompt import plain_prompt, templated_prompt
from ragschema.errors import InvalidInput
from ragschema.types import ChatMessage

SYSTEM, USER = ChatMessage("system", "Be short."), ChatMessage("user", "Hello?")
PICKY = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_plain_prompt_ends_where_the_assistant_speaks() -> None:
    assert plain_prompt([SYSTEM, USER]) == "System: Be short.\n\nUser: Hello?\n\nAssistant:"


def test_template_without_system_turns_gets_them_in_the_first_turn(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = PICKY
    assert templated_prompt(tokenizer, [USER]) == "<user>Hello?<assistant>"
    assert templated_prompt(tokenizer, [SYSTEM, USER]) == "<user>Be short.\n\nHello?<assistant>"


def test_template_that_refuses_is_reported(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = "{{ raise_exception('turns must alternate') }}"
    with pytest.raises(InvalidInput, match="turns must alternate"):
        templated_prompt(tokenizer, [USER])
    with pytest.raises(InvalidInput, match="turns must alternate"):
        templated_prompt(tokenizer, [SYSTEM, USER])
