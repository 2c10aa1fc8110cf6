"""Refuses options that a generator would ignore."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from ragschema.errors import IncompatibleRequest
from ragschema.types import Sampling

#: What every generator either does or has no use for.
_EVERYWHERE: Final = frozenset({"max_tokens", "temperature", "top_p", "seed", "stop"})


def require_supported(
    sampling: Sampling, generator: str, supported: frozenset[str] = frozenset()
) -> None:
    """Raises IncompatibleRequest for an option that is set and would have no effect.

    Args:
        supported: options beyond those of every generator.
    """
    plain = Sampling()
    for name in (one.name for one in fields(Sampling)):
        value = getattr(sampling, name)
        if name not in _EVERYWHERE | supported and value != getattr(plain, name):
            raise IncompatibleRequest(
                f"the generator {generator} has no {name}, which is {value!r}",
                field=f"sampling.{name}",
                hint="leave it out, or ask a node whose generator is hf:DIR",
            )
