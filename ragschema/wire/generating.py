"""Generations between protobuf messages and ragrig's own types."""

from __future__ import annotations

from collections.abc import Iterable

from ragschema import errors as e
from ragschema import types as t
from ragschema.sampling import check_sampling
from ragschema.wire import augment_pb2, llm_pb2


def generate_to_wire(spec: t.GenerateSpec) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(
        messages=[llm_pb2.ChatMessage(role=m.role, content=m.content) for m in spec.messages],
        question=spec.question,
        passages=[
            llm_pb2.PromptPassage(number=p.number, title=p.title, text=p.text)
            for p in spec.passages
        ],
        sampling=_sampling_to_wire(spec.sampling),
    )


def generate_from_wire(message: llm_pb2.GenerateRequest) -> t.GenerateSpec:
    """Raises InvalidInput, naming the field, for sampling values out of range."""
    return t.GenerateSpec(
        messages=tuple(t.ChatMessage(m.role, m.content) for m in message.messages),
        question=message.question,
        passages=tuple(t.Passage(p.number, p.title, p.text) for p in message.passages),
        sampling=_sampling_from_wire(message.sampling),
    )


def _sampling_to_wire(sampling: t.Sampling) -> llm_pb2.Sampling:
    return llm_pb2.Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=sampling.stop,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop_ids=sampling.stop_ids,
        min_tokens=sampling.min_tokens,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        n=sampling.n,
    )


def _sampling_from_wire(message: llm_pb2.Sampling) -> t.Sampling:
    told = message.HasField
    sampling = t.Sampling(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p,
        seed=message.seed if told("seed") else None,
        stop=tuple(message.stop),
        top_k=message.top_k,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty if told("repetition_penalty") else 1.0,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        stop_ids=tuple(message.stop_ids),
        min_tokens=message.min_tokens,
        ignore_eos=message.ignore_eos,
        logprobs=message.logprobs if told("logprobs") else None,
        n=message.n or 1,
    )
    check_sampling(sampling)
    return sampling


def logprobs_to_wire(logprobs: Iterable[t.TokenLogprob]) -> list[llm_pb2.TokenLogprob]:
    return [
        llm_pb2.TokenLogprob(
            chosen=_chance_to_wire(one.chosen), top=[_chance_to_wire(other) for other in one.top]
        )
        for one in logprobs
    ]


def logprobs_from_wire(messages: Iterable[llm_pb2.TokenLogprob]) -> tuple[t.TokenLogprob, ...]:
    return tuple(
        t.TokenLogprob(
            _chance_from_wire(one.chosen), tuple(_chance_from_wire(other) for other in one.top)
        )
        for one in messages
    )


def _chance_to_wire(chance: t.TokenChance) -> llm_pb2.TokenChance:
    return llm_pb2.TokenChance(text=chance.text, data=chance.data, logprob=chance.logprob)


def _chance_from_wire(message: llm_pb2.TokenChance) -> t.TokenChance:
    return t.TokenChance(message.text, message.data, message.logprob)


def piece_to_wire(piece: t.TokenPiece) -> llm_pb2.TokenEvent:
    return llm_pb2.TokenEvent(
        text=piece.text,
        tokens=piece.tokens,
        index=piece.index,
        logprobs=logprobs_to_wire(piece.logprobs),
    )


def piece_from_wire(message: llm_pb2.TokenEvent) -> t.TokenPiece:
    return t.TokenPiece(
        message.text, message.tokens, message.index, logprobs_from_wire(message.logprobs)
    )


def event_to_wire(event: t.GenerateEvent) -> llm_pb2.GenerateEvent:
    if isinstance(event, t.TokenPiece):
        return llm_pb2.GenerateEvent(token=piece_to_wire(event))
    return llm_pb2.GenerateEvent(done=done_to_wire(event))


def event_from_wire(message: llm_pb2.GenerateEvent) -> t.GenerateEvent:
    kind = message.WhichOneof("event")
    if kind == "token":
        return piece_from_wire(message.token)
    if kind == "done":
        return done_from_wire(message.done)
    raise e.UpstreamError("an LLM node sent an event of an unknown kind")


def augmented_from_wire(message: augment_pb2.AugmentEvent) -> t.GenerateEvent:
    """Of a token or done event."""
    kind = message.WhichOneof("event")
    if kind == "token":
        return piece_from_wire(message.token)
    if kind == "done":
        return done_from_wire(message.done.done)
    raise e.UpstreamError("an LLM node sent an event of an unknown kind")


def done_to_wire(end: t.GenerateEnd) -> llm_pb2.GenerateDone:
    return llm_pb2.GenerateDone(
        finish_reason=end.finish_reason,
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
        queue_us=end.queue_us,
        first_token_us=end.first_token_us,
        total_us=end.total_us,
        index=end.index,
    )


def done_from_wire(done: llm_pb2.GenerateDone) -> t.GenerateEnd:
    return t.GenerateEnd(
        finish_reason=done.finish_reason,
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        queue_us=done.queue_us,
        first_token_us=done.first_token_us,
        total_us=done.total_us,
        index=done.index,
    )
