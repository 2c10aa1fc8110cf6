"""What is known of answers that another node began: checked, and read again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from llm_node.engine.admit import check_ids, finish_behind
from llm_node.engine.engine import Engine
from llm_node.engine.request import Finish
from llm_node.generate.answer import Answer
from llm_node.generate.hf import HfGenerator
from ragschema.errors import InvalidInput, PayloadTooLarge
from ragschema.types import GenerateSpec, Sampling
from ragschema.wire import kv_pb2

#: Tokens that are made into text between two looks at what else is to be done; some ms.
_AT_ONCE = 256


def known_tokens(
    answers: Sequence[kv_pb2.KnownAnswer], sampling: Sampling, engine: Engine
) -> dict[int, Sequence[int]]:
    """Tokens of the answers that go on, by index; costs little whatever was sent.

    Raises:
        InvalidInput: they are not the answers that were asked for, or of another vocabulary.
        PayloadTooLarge: there are more than an answer may have.
    """
    if len(answers) != sampling.n:
        raise InvalidInput(
            f"{len(answers)} answers are told of {sampling.n}",
            field="answers",
            hint="tell what is known of each answer, in their order",
        )
    known: dict[int, Sequence[int]] = {}
    for index, one in enumerate(answers):
        if not one.ended:
            _check(index, one.token_ids, sampling, engine)
            known[index] = tuple(one.token_ids)
    if not known:
        raise InvalidInput(
            "all answers have ended", field="answers", hint="ask for those that go on"
        )
    return known


def _check(index: int, ids: Sequence[int], sampling: Sampling, engine: Engine) -> None:
    field = f"answers.{index}.token_ids"
    # One token of the context is the prompt's at least.
    most = min(sampling.max_tokens, engine.max_tokens - 1)
    if len(ids) > most:
        raise PayloadTooLarge(
            f"{len(ids)} tokens are known of an answer that may have {most}",
            field=field,
            hint="send the tokens of this answer only, with the options they were drawn with",
        )
    if ids:
        check_ids(ids, engine.model.vocabulary, field)


async def read_again(
    generator: HfGenerator,
    spec: GenerateSpec,
    eos: frozenset[int],
    known: Mapping[int, Sequence[int]],
) -> dict[int, Answer]:
    """Each answer as far as it is known; those that end with it have a ``finish``.

    A node may be lost between an answer's last token and the word that it ended. The
    next one must not draw another, so it asks of each token what the first one asked.
    """
    answers = {index: generator.answer(spec.sampling, index) for index in known}
    for index, answer in answers.items():
        for made, token_id in enumerate(known[index], start=1):
            answer.add(token_id)
            if finish := finish_behind(spec.sampling, eos, token_id, made):
                answer.end(finish.value)
            if answer.finish is not None:
                break
            if made % _AT_ONCE == 0:
                await asyncio.sleep(0)
    return answers


def end_full(answers: Mapping[int, Answer], prompt_tokens: int, max_tokens: int) -> None:
    """Ends the answers that have filled the model's context, as the engine does."""
    for answer in answers.values():
        if answer.tokens and prompt_tokens + answer.tokens >= max_tokens:
            answer.end(Finish.LENGTH.value)
