"""Probe of steps that read a piece of a prompt beside the answers they write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from coordinator.profile.language import LanguageNode, Writing, prompt_spec, written
from coordinator.profile.plan import Grid
from coordinator.profile.probe import Call, Probe, Reading
from coordinator.profile.searching import CALL_S
from ragschema.errors import UpstreamError
from ragschema.llm_rig import PREFILL_CHUNK
from ragschema.types import CallContext, GenerateSpec, Role

#: Writing, and a piece of a prompt; attention makes both grow with what stands before.
_TERMS: Final = ("1", "batch", "tokens", "batch*tokens")
#: A prompt's last piece is so much shorter, lest a template's token more makes a further one.
_SPARE_TOKENS: Final = 4
#: Written beyond the steps that are measured, so that nobody ends before.
_MORE: Final = 6
#: Tokens of an answer beyond which its context is no longer that of the point.
_MOST_WRITTEN: Final = 512


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
            if not known:
                known.extend([await prompt_spec(node, tokens, 1) for _ in range(batch)])
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
    # Read already, unless they were forgotten: they begin to write at once.
    await asyncio.gather(*(written(node.client, spec) for spec in known))
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
