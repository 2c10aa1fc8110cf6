"""Probe of what two processes on one machine cost each other: memory, caches, clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from coordinator.profile.language import LanguageNode, prompt_spec, written
from coordinator.profile.probe import Call, Probe, Reading
from ragschema.types import GenerateSpec, Role

_BATCH: Final = 4
_TOKENS: Final = 120
_OUTPUT: Final = 24


def crowded_probe(nodes: Sequence[LanguageNode]) -> Probe:
    """Requests that are read and written by ``processes`` nodes, each as many at the same time.

    Args:
        nodes: with the same model and threads, each with cores enough.
    """

    def point(count: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            specs = [
                [await prompt_spec(node, _TOKENS, _OUTPUT) for _ in range(_BATCH)]
                for node in nodes[:count]
            ]
            started_s = time.perf_counter()
            took_s = await asyncio.gather(
                *(
                    _until_all(node, mine, started_s)
                    for node, mine in zip(nodes, specs, strict=False)
                )
            )
            return {"crowded": Reading({"processes": float(count)}, sum(took_s) / count)}

        return call

    kind = nodes[0].kind("crowded", Role.GENERATE, ("1", "processes"))
    return Probe((kind,), tuple(point(count) for count in range(1, len(nodes) + 1)))


async def _until_all(node: LanguageNode, specs: Sequence[GenerateSpec], started_s: float) -> float:
    await asyncio.gather(*(written(node.client, spec) for spec in specs))
    return time.perf_counter() - started_s
