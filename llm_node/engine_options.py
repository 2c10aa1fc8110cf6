"""The engine's options as they stand on a command line: ``step_tokens=256,dtype=bfloat16``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from llm_node.engine.config import EngineConfig
from ragschema.errors import InvalidInput

_FIELD: Final = "--engine"


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "device": str,
    "dtype": str,
    "block_tokens": int,
    "max_tokens_per_request": int,
    "max_running": int,
    "step_tokens": int,
    "prefill_chunk": int,
    "prefix_reuse": _flag,
    "cuda_graphs": _flag,
    "compile_steps": _flag,
}


def parse_engine(text: str, kv_mib: int | None) -> EngineConfig:
    """The engine's configuration; what is not named keeps its default.

    Raises:
        InvalidInput: naming the option that is unknown, unreadable or out of range.
    """
    told: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        told[name.strip()] = _read(name.strip(), value.strip())
    kv_bytes = None if kv_mib is None else kv_mib << 20
    return replace(EngineConfig(kv_bytes=kv_bytes), **told)


def _read(name: str, value: str) -> Any:
    reader = _READERS.get(name)
    if reader is None:
        near = difflib.get_close_matches(name, _READERS, n=1)
        raise InvalidInput(
            f"{name!r} is no option of the engine",
            field=_FIELD,
            hint=f"did you mean {near[0]}?" if near else f"use some of {', '.join(_READERS)}",
        )
    try:
        return reader(value)
    except (ValueError, KeyError) as error:
        kinds = {int: "a whole number", _flag: "true or false"}
        raise InvalidInput(
            f"{name} is {value!r}", field=_FIELD, hint=f"use {kinds[reader]}"
        ) from error
