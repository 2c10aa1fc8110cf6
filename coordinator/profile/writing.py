"""Probes of steps: that write, and that read a piece of a prompt beside."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from coordinator.profile.language import (
    LanguageNode,
    Writing,
    fitting,
    prompt_spec,
    sizes_of,
    written,
)
from coordinator.profile.plan import Grid
from coordinator.profile.probe import Call, Probe, Reading
from coordinator.profile.searching import CALL_S
from ragschema.errors import UpstreamError
from ragschema.llm_rig import PREFILL_CHUNK
from ragschema.types import CallContext, GenerateSpec, Role

#: Of writing: steps, sequences, and what stands before.
_WRITING: Final = ("1", "batch", "batch*tokens")
#: Writing, and a piece of a prompt; attention makes both grow with what stands before.
_TERMS: Final = ("1", "batch", "tokens", "batch*tokens")
#: A prompt's last piece is so much shorter, lest a template's token more makes a further one.
_SPARE_TOKENS: Final = 4
#: Written beyond the steps that are measured, so that nobody ends before.
_MORE: Final = 6
#: Tokens of an answer beyond which its context is no longer that of the point.
_MOST_WRITTEN: Final = 256


def decode_probe(node: LanguageNode, grid: Grid) -> Probe:
    """One step of ``batch`` sequences that write together, with ``tokens`` in their prompts.

    Where a model is so fast that the first sequences end before the last begin, they write more.
    """

    def point(batch: int, tokens: int) -> Call:
        output = grid.decode_tokens
        known: list[GenerateSpec] = []

        async def call() -> Mapping[str, Reading]:
            nonlocal output
            await _know(node, known, batch, tokens)
            while True:
                told = await asyncio.gather(
                    *(written(node.client, _longer(spec, output)) for spec in known)
                )
                try:
                    seconds = step_s(told)
                except UpstreamError:
                    output *= 2
                    if output > _MOST_WRITTEN:
                        raise
                else:
                    return {"decode": Reading(sizes_of([w.end for w in told], tokens), seconds)}

        return call

    points = tuple(point(*pair) for pair in fitting(grid.decode, node))
    return Probe((node.kind("decode", Role.GENERATE, _WRITING),), points)


async def _know(node: LanguageNode, known: list[GenerateSpec], batch: int, tokens: int) -> None:
    """Lets the node read prompts, the first time or where it forgot them: who asks again for
    them begins to write at once."""
    if not known:
        known.extend([await prompt_spec(node, tokens, 1) for _ in range(batch)])
    await asyncio.gather(*(written(node.client, spec) for spec in known))


def mixed_probe(node: LanguageNode, grid: Grid) -> Probe:
    """One step of ``batch`` answers of about ``tokens`` tokens each, with a piece of a prompt.

    Two prompts come while others write. Between their first tokens, which are all that they
    write, lie the steps that read the second one. Where a model is so fast that the others end
    before, they write more.
    """
    piece = node.config.engine.prefill_chunk or PREFILL_CHUNK

    def point(batch: int, pieces: int) -> Call:
        tokens = pieces * piece - _SPARE_TOKENS
        output = 2 * pieces + _MORE
        known: list[GenerateSpec] = []

        async def call() -> Mapping[str, Reading]:
            nonlocal output
            await _know(node, known, batch, tokens)
            while True:
                others, first, second = await _mixed(node, known, tokens, output)
                try:
                    seconds = mixed_step_s(others, first, second, pieces)
                except UpstreamError:
                    output *= 2
                    if output > _MOST_WRITTEN:
                        raise
                else:
                    return {"mixed": Reading({"batch": batch, "tokens": tokens}, seconds)}

        return call

    pairs = [(b, pieces) for b, pieces in grid.mixed if b < node.config.max_running]
    kind = node.kind("mixed", Role.GENERATE, _TERMS, {"piece": float(piece)})
    return Probe((kind,), tuple(point(*pair) for pair in pairs))


async def _mixed(
    node: LanguageNode, known: Sequence[GenerateSpec], tokens: int, output: int
) -> tuple[list[Writing], Writing, Writing]:
    """Answers to known prompts, and to two new ones that come when those are being written."""
    asked = [await prompt_spec(node, tokens, 1) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(written(node.client, _longer(s, output))) for s in known]
        while not all(task.done() for task in others):
            status = await node.client.status(CallContext.start(CALL_S))
            if status.engine.running >= len(known):
                break
        first, second = [group.create_task(written(node.client, spec)) for spec in asked]
    return [task.result() for task in others], first.result(), second.result()


def _longer(spec: GenerateSpec, tokens: int) -> GenerateSpec:
    return replace(spec, sampling=replace(spec.sampling, max_tokens=tokens, min_tokens=tokens))


def step_s(writings: Sequence[Writing]) -> float:
    """Seconds of a step of sequences that wrote together.

    Raises:
        UpstreamError: they did not, for less than half of the time any of them wrote.
    """
    together_s = min(w.ended_s for w in writings) - max(w.began_s for w in writings)
    whole_s = max(w.ended_s for w in writings) - min(w.began_s for w in writings)
    if not together_s > 0.5 * whole_s > 0:
        raise UpstreamError(
            f"{len(writings)} sequences did not write together",
            hint="give the node a max_running of at least that",
        )
    steps = [(w.ended_s - w.began_s) / max(1, w.end.completion_tokens - 1) for w in writings]
    return statistics.median(steps)


def mixed_step_s(others: Sequence[Writing], first: Writing, second: Writing, pieces: int) -> float:
    """Seconds of each step between the first tokens of two prompts.

    Raises:
        UpstreamError: not all of the others were writing all that time.
    """
    early_s, late_s = sorted((first.began_s, second.began_s))
    begun_s = max(other.began_s for other in others)
    until_s = min(other.ended_s for other in others)
    if not begun_s <= early_s < late_s <= until_s:
        raise UpstreamError(
            f"{len(others)} answers were not written while prompts were read",
            hint="give the node a max_running beyond that",
        )
    return (late_s - early_s) / pieces
