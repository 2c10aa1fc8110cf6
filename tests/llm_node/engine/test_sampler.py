from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.engine.draw import chance, draw
from llm_node.engine.penalties import Tally
from llm_node.engine.sampler import Chosen, Sampler, SamplerRow
from ragschema.types import Sampling
from tests.llm_node.engine.sampling_reference import drawn, probabilities, shaped_logits

VOCABULARY = 400


def row_of(rng: random.Random, **fixed: Any) -> SamplerRow:
    options: dict[str, Any] = {
        "temperature": rng.choice([0.0, 0.3, 1.0, 1.7]),
        "top_k": rng.choice([0, 0, 1, 7, 1000]),
        "top_p": rng.choice([1.0, 1.0, 0.5, 0.95]),
        "min_p": rng.choice([0.0, 0.0, 0.05]),
        "repetition_penalty": rng.choice([1.0, 1.3, 0.8]),
        "presence_penalty": rng.choice([0.0, 1.5, -0.5]),
        "frequency_penalty": rng.choice([0.0, 0.7]),
        "min_tokens": rng.choice([0, 0, 8]),
        "logprobs": rng.choice([None, 0, 4]),
    }
    prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 90))]
    outputs = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(16))]
    ends = tuple(rng.sample(range(VOCABULARY), 3))
    sampling = Sampling(**{**options, **fixed})
    return SamplerRow(sampling, prompt + outputs, outputs, rng.getrandbits(63), ends)


def logits_of(seed: int, rows: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 3
    # Equal logits, also at the borders of what is kept.
    return (logits * 4).round() / 4


def expected_of(logits: torch.Tensor, row: SamplerRow) -> int:
    shaped = shaped_logits(
        logits.double().numpy(), row.sampling, row.token_ids, row.output_ids, row.ends
    )
    if row.sampling.temperature == 0:
        return int(shaped.argmax())
    p = probabilities(shaped, row.sampling)
    return drawn(p, chance(row.seed, len(row.output_ids)))


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_of_all_kinds_equals_the_formula(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [row_of(rng) for _ in range(24)]
    logits = logits_of(seed, len(rows))
    kept = logits.clone()
    found = [chosen.token_id for chosen in Sampler().choose(logits, rows)]
    assert found == [expected_of(logits[i], row) for i, row in enumerate(rows)]
    assert torch.equal(logits, kept)


@pytest.mark.gpu
def test_a_gpu_chooses_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    rng = random.Random(77)
    rows = [row_of(rng) for _ in range(24)]
    logits = logits_of(77, len(rows))
    there = Sampler().choose(logits.cuda(), rows)
    here = Sampler().choose(logits, rows)
    assert [one.token_id for one in there] == [one.token_id for one in here]


@pytest.mark.parametrize("seed", range(4))
def test_a_row_does_not_depend_on_the_others(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(100 + seed)
    rows = [row_of(rng) for _ in range(12)]
    logits = logits_of(seed, len(rows))
    together = Sampler().choose(logits, rows)
    alone = [Sampler().choose(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert together == alone


def test_a_growing_sequence_is_tallied_as_a_whole() -> None:
    rng = random.Random(5)
    prompt = [rng.randrange(300) for _ in range(200)]
    tokens, outputs, tally = list(prompt), [], Tally()
    for step in range(150):
        if step % 3 == 0:
            outputs.append(rng.randrange(300))
            tokens.append(outputs[-1])
        else:
            tokens.append(rng.randrange(300))  # context that was read
        tally.update(tokens, outputs)
    written = Counter(outputs)
    assert sorted(tally.ids.tolist()) == sorted(set(tokens))
    told = dict(zip(tally.ids.tolist(), tally.written.tolist(), strict=True))
    assert told == {token: written[token] for token in set(tokens)}


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    sampling = Sampling(temperature=0.8, top_k=3, top_p=0.95)
    p = probabilities(logits[0].double().numpy(), sampling)
    draws = 4000
    found = Counter(draw(logits, [sampling], [chance(7, place)])[0] for place in range(draws))
    shares = np.array([found[i] / draws for i in range(4)])
    np.testing.assert_allclose(shares, p, atol=0.03)
    assert found[3] == 0


def test_chances_are_even_and_their_own() -> None:
    chances = [chance(seed, place) for seed in range(40) for place in range(50)]
    assert all(0 <= one < 1 for one in chances)
    assert len(set(chances)) == len(chances)
    counts, _ = np.histogram(chances, bins=10, range=(0, 1))
    assert counts.min() > 140


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    row = SamplerRow(Sampling(temperature=1e-30), [0], [], 2)
    assert Sampler().choose(torch.tensor([[1.0, 900.0, -900.0]]), [row])[0].token_id == 1


def test_a_flat_nucleus_reaches_beyond_the_first_sorted_weights() -> None:
    logits = torch.linspace(0, 0.01, 3000)[None]
    sampling = Sampling(temperature=1.0, top_p=0.5)
    p = probabilities(logits[0].double().numpy(), sampling)
    for u in (0.0, 0.4, 0.999):
        assert draw(logits, [sampling], [u]) == [drawn(p, u)]
    assert draw(logits, [sampling], [0.0])[0] > 1000


def test_log_probabilities_are_the_models_own() -> None:
    logits = logits_of(3, 2)
    rows = [
        SamplerRow(Sampling(logprobs=5, repetition_penalty=2.0, temperature=1.5), [1, 2], [2], 9),
        SamplerRow(Sampling(logprobs=0), [1], [], 9),
    ]
    first, second = Sampler().choose(logits, rows)
    own = torch.log_softmax(logits, dim=-1)
    assert first.logprob == pytest.approx(float(own[0, first.token_id]))
    assert [value for _, value in first.top] == pytest.approx(own[0].topk(5).values.tolist())
    assert all(float(own[0, i]) == pytest.approx(value) for i, value in first.top)
    assert second.logprob == pytest.approx(float(own[1].max()))
    assert second.top == ()


def test_ends_are_held_back_until_there_are_enough_tokens() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, 1.0]])
    outputs: list[int] = []
    row = SamplerRow(Sampling(min_tokens=2), [0], outputs, 1, ends=(1, 2, 99))
    for expected in (3, 3, 1):
        assert Sampler().choose(logits, [row]) == [Chosen(expected)]
        outputs.append(expected)


def test_the_greatest_chance_is_still_a_token_of_some_weight() -> None:
    logits = torch.tensor([[0.0, -math.inf]])
    assert draw(logits, [Sampling(temperature=1.0)], [1 - 2**-52]) == [0]


def test_tokens_that_are_read_and_never_written_bear_no_penalty() -> None:
    """Some models have more embeddings than logits."""
    logits = torch.tensor([[0.5, 3.0, 1.0, 2.0]])
    sampling = Sampling(repetition_penalty=4.0)
    row = SamplerRow(sampling, [1, 7, 4], [], 0)
    assert [one.token_id for one in Sampler().choose(logits, [row])] == [3]


def test_an_end_that_is_no_token_holds_none_back() -> None:
    logits = torch.tensor([[0.5, 3.0, 1.0, 5.0]])
    row = SamplerRow(Sampling(min_tokens=3), [1], [], 0, ends=(-1, 4))
    assert [one.token_id for one in Sampler().choose(logits, [row])] == [3]
