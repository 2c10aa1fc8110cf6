"""Checks requests and makes the sequences they become."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from llm_node.engine.request import EngineRequest, Finish, Sequence
from ragschema.errors import IncompatibleRequest, InvalidInput, PayloadTooLarge
from ragschema.sampling import check_sampling
from ragschema.types import Sampling

if TYPE_CHECKING:
    from llm_node.engine.kv import KvSnapshot


def make_sequences(
    request: EngineRequest,
    arrival: int,
    max_tokens: int,
    vocabulary: int,
    snapshot: KvSnapshot | None,
    known: Mapping[int, Seq[int]],
) -> list[Sequence]:
    """A request's sequences; all but the first wait for the first's prompt.

    Args:
        known: by index, what each has generated elsewhere already.

    Raises:
        PayloadTooLarge: prompt and known tokens leave no room for an answer.
        InvalidInput, IncompatibleRequest: see ``Engine.add`` and ``import_kv``; an
            option of the sampling is out of its range; known tokens end a sequence already.
    """
    check_sampling(request.sampling)
    if request.sampling.stop_ids:
        check_ids(request.sampling.stop_ids, vocabulary, "sampling.stop_ids")
    if not known or max(known) >= request.sampling.n or min(known) < 0:
        raise InvalidInput(
            f"{sorted(known)} are not some of {request.sampling.n} sequences",
            field="output_ids",
            hint="tell known tokens by the index of their answer",
        )
    for output_ids in known.values():
        _check_tokens(request, snapshot, output_ids, max_tokens, vocabulary)
    seed = secrets.randbits(63) if request.seed is None else request.seed
    sequences = [
        Sequence(
            request=request,
            index=i,
            arrival=arrival + place,
            seed=seed_of(seed, i),
            limit=max_tokens,
            token_ids=[*request.prompt_ids, *known[i]],
            output_ids=list(known[i]),
            snapshot=snapshot,
        )
        for place, i in enumerate(sorted(known))
    ]
    for sequence in sequences[1:]:
        sequence.leader = sequences[0]
    return sequences


def _check_tokens(
    request: EngineRequest,
    snapshot: KvSnapshot | None,
    output_ids: Seq[int],
    max_tokens: int,
    vocabulary: int,
) -> None:
    tokens = [*request.prompt_ids, *output_ids]
    check_ids(tokens, vocabulary, "prompt_ids")
    if len(tokens) >= max_tokens:
        raise PayloadTooLarge(
            f"the prompt has {len(tokens)} tokens, a request may have {max_tokens} and needs one"
            " for its answer",
            field="messages",
            hint="send fewer or shorter passages",
        )
    # Whoever goes on behind an end writes what one node would not have written.
    made = len(output_ids)
    if made and finish_behind(request.sampling, request.eos, output_ids[-1], made) is not None:
        raise InvalidInput(
            f"the {made} known tokens end the sequence already",
            field="output_ids",
            hint="leave out sequences that have ended",
        )
    if snapshot is None:
        return
    if list(snapshot.token_ids[: snapshot.computed]) != tokens[: snapshot.computed]:
        raise IncompatibleRequest(
            "the KV snapshot belongs to other tokens than the request's", field="snapshot"
        )


def finish_behind(
    sampling: Sampling, eos: frozenset[int], token_id: int, made: int
) -> Finish | None:
    """Why a sequence ends behind the last of its ``made`` tokens; None: it goes on.

    The room in the model's context is not looked at, and neither are stop strings.
    """
    if made >= sampling.min_tokens:
        ends = token_id in eos and not sampling.ignore_eos
        if ends or token_id in sampling.stop_ids:
            return Finish.STOP
    return Finish.LENGTH if made >= sampling.max_tokens else None


def check_ids(ids: Seq[int], vocabulary: int, field: str) -> None:
    """Raises InvalidInput when there are no ids, or some have no embedding."""
    if not ids:
        raise InvalidInput("there are no tokens", field=field, hint="send at least one")
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise InvalidInput(
            f"ids reach from {min(ids)} to {max(ids)}, the model knows {vocabulary}",
            field=field,
            hint="use the tokenizer of the model's checkpoint",
        )


def seed_of(seed: int, index: int) -> int:
    """The seed of the index-th of n sequences; the first has the request's own."""
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
