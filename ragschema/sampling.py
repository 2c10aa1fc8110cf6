"""Bounds of the sampling options, the same at every door."""

from __future__ import annotations

from typing import Final

from ragschema.errors import InvalidInput
from ragschema.types import Sampling

MAX_N: Final = 16
MAX_LOGPROBS: Final = 20
MAX_STOP_IDS: Final = 64
MAX_PENALTY: Final = 2.0
_MAX_TOKENS: Final = 1 << 20
_MAX_ID: Final = (1 << 31) - 1

#: Field, least and greatest value.
_RANGES: Final[tuple[tuple[str, float, float], ...]] = (
    ("max_tokens", 1, _MAX_TOKENS),
    ("temperature", 0, 100),
    ("min_tokens", 0, _MAX_TOKENS),
    ("top_k", 0, _MAX_ID),
    ("min_p", 0, 1),
    ("repetition_penalty", 0.01, 100),
    ("presence_penalty", -MAX_PENALTY, MAX_PENALTY),
    ("frequency_penalty", -MAX_PENALTY, MAX_PENALTY),
    ("n", 1, MAX_N),
)


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidInput, naming field, value and range, for what nobody can do."""
    for name, low, high in _RANGES:
        value = getattr(sampling, name)
        # Written so that NaN is out of every range.
        if not low <= value <= high:
            raise _outside(name, value, f"{low} to {high}")
    if not 0 < sampling.top_p <= 1:
        raise _outside("top_p", sampling.top_p, "more than 0, at most 1")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= MAX_LOGPROBS:
        raise _outside("logprobs", sampling.logprobs, f"0 to {MAX_LOGPROBS}")
    if sampling.seed is not None and not 0 <= sampling.seed < 1 << 64:
        raise _outside("seed", sampling.seed, "0 to 2**64 - 1")
    if sampling.min_tokens > sampling.max_tokens:
        raise _outside("min_tokens", sampling.min_tokens, f"0 to max_tokens, {sampling.max_tokens}")
    _check_stop_ids(sampling.stop_ids)


def _check_stop_ids(ids: tuple[int, ...]) -> None:
    if len(ids) > MAX_STOP_IDS:
        raise InvalidInput(
            f"there are {len(ids)} stop ids, at most {MAX_STOP_IDS} are possible",
            field="sampling.stop_ids",
            hint="leave some out",
        )
    for number, token_id in enumerate(ids):
        if not 0 <= token_id <= _MAX_ID:
            raise _outside(f"stop_ids.{number}", token_id, f"0 to {_MAX_ID}")


def _outside(name: str, value: float, allowed: str) -> InvalidInput:
    return InvalidInput(
        f"{name} is {value}, outside its range", field=f"sampling.{name}", hint=f"use {allowed}"
    )
