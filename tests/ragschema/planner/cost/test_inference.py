"""The roofline of transformers: by hand, by dimension, by direction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragschema.hardware.devices import Accelerator
from ragschema.models import Moe, Transformer, find_model
from ragschema.planner.cost.batches import answers, prefill_on, prompts
from ragschema.planner.cost.inference import (
    Precision,
    Split,
    Work,
    all_reduce_s,
    encode_s,
    pass_s,
    splits,
)
from tests.ragschema.planner.making import decode_s, prefill_s

CHIP = Accelerator("chip", 1e12, 1e9, 1e10, 1e9)
TINY = Transformer(8, 2, 2, 2, 4, 16, 10, "made up")
BYTES = Precision(1.0, 2.0, 2.0)
BIG = find_model("llama-3-8b")
XPU = Accelerator("xpu", 459e12, 96e9, 2765e9, 600e9)


def test_a_memory_bound_step_reads_weights_and_cache_once() -> None:
    # qkv 8x24, o 8x8, up 8x32, down 16x8 weights; the cache 10 tokens x 16 values x 2 bytes.
    layer_bytes = 8 * 24 + 8 * 8 + 8 * 32 + 16 * 8 + 10 * 16 * 2
    head_bytes = 8 * 10
    seconds = pass_s(TINY, CHIP, BYTES, Work(1, 1, 10.0), Split(1, 1, 1))
    assert seconds == pytest.approx((2 * layer_bytes + head_bytes) / 1e10)


def test_a_compute_bound_pass_does_two_flops_per_weight_and_token() -> None:
    slow = replace(CHIP, flops_per_s=1e3, memory_bytes_per_s=1e15)
    tokens = 100
    weights = 8 * 24 + 8 * 8 + 8 * 32 + 16 * 8
    attention = 4 * tokens * 50.0 * 8
    wanted = (2 * (2 * tokens * weights + attention) + 2 * 8 * 10) / 1e3
    assert pass_s(TINY, slow, BYTES, Work(1, tokens, 50.0), Split(1, 1, 1)) == pytest.approx(wanted)


def test_twice_the_chip_is_half_the_time() -> None:
    """Seconds scale with 1 / rate: every term is FLOPs over FLOP/s or bytes over bytes/s."""
    twice = replace(
        XPU,
        flops_per_s=XPU.flops_per_s * 2,
        memory_bytes_per_s=XPU.memory_bytes_per_s * 2,
        link_bytes_per_s=XPU.link_bytes_per_s * 2,
    )
    work, split = Work(16, 64, 40.0), Split(1, 4, 2)
    assert pass_s(BIG, twice, BYTES, work, split) == pytest.approx(
        pass_s(BIG, XPU, BYTES, work, split) / 2
    )


def test_all_reduce_of_one_chip_is_free_and_grows_with_steps() -> None:
    slow_links = replace(CHIP, link_latency_s=1.0)
    assert all_reduce_s(1e6, 1, slow_links) == 0.0
    assert all_reduce_s(0.0, 4, slow_links) == pytest.approx(6.0)
    assert all_reduce_s(1e9, 2, CHIP) == pytest.approx(1.0)


def test_splits_are_all_factorisations_within_heads_and_layers() -> None:
    found = {(s.data, s.tensor, s.pipeline) for s in splits(4, TINY)}
    assert found == {(4, 1, 1), (2, 1, 2), (2, 2, 1), (1, 2, 2)}


def test_a_model_larger_than_memory_needs_more_chips() -> None:
    small = replace(XPU, memory_bytes=5e9)
    assert prefill_s(BIG, small, BYTES, 1, 1, prompts(128)) is None
    assert prefill_s(BIG, small, BYTES, 2, 1, prompts(128)) is not None


def test_the_cache_of_a_batch_must_fit() -> None:
    whole = Split(1, 1, 1)
    assert prefill_on(BIG, XPU, BYTES, whole, 1, prompts(1000)) is not None
    assert prefill_on(BIG, XPU, BYTES, whole, 1000, prompts(1000)) is None
    assert decode_s(BIG, XPU, BYTES, 1, 4096, answers(512, 256)) is None


@pytest.mark.parametrize("chips", [1, 2, 4, 8])
def test_a_larger_batch_takes_longer_and_serves_more(chips: int) -> None:
    times = [decode_s(BIG, XPU, BYTES, chips, b, answers(512, 256)) for b in (1, 8, 64)]
    assert all(t is not None for t in times)
    quick = [t for t in times if t is not None]
    assert quick == sorted(quick)
    rates = [b / t for b, t in zip((1, 8, 64), quick, strict=True)]
    assert rates == sorted(rates)


def test_a_wider_cache_slows_decode() -> None:
    wide = replace(BYTES, kv_bytes=4.0)
    narrow_s = decode_s(BIG, XPU, BYTES, 4, 64, answers(4096, 256))
    wide_s = decode_s(BIG, XPU, wide, 4, 64, answers(4096, 256))
    assert narrow_s is not None
    assert wide_s is not None
    assert wide_s > narrow_s


def test_encoders_spread_over_chips() -> None:
    one = encode_s(120e6, XPU, 1.0, 1, 64, 128)
    assert encode_s(120e6, XPU, 1.0, 64, 64, 128) == pytest.approx(one / 64, rel=0.5)
    assert one == pytest.approx(2 * 120e6 * 64 * 128 / XPU.flops_per_s)


def test_cached_tokens_are_attended_to_but_not_computed() -> None:
    roomy = replace(CHIP, memory_bytes=1e11)
    whole, half, none = (
        prefill_s(BIG, roomy, BYTES, 1, 8, prompts(1024, cached)) for cached in (0, 512, 1023)
    )
    assert whole is not None
    assert half is not None
    assert none is not None
    assert none < half < whole
    fresh = prefill_s(BIG, roomy, BYTES, 1, 8, prompts(512))
    assert fresh is not None
    assert half > fresh  # its tokens attend to more


def test_a_token_of_a_mixture_reads_its_own_experts_only() -> None:
    mixture = replace(TINY, moe=Moe(experts=4, per_token=1, ffn=16))
    one, dense = Work(1, 1, 10.0), Split(1, 1, 1)
    # With one token, one expert of the dense size is read.
    assert pass_s(mixture, CHIP, BYTES, one, dense) == pytest.approx(
        pass_s(TINY, CHIP, BYTES, one, dense)
    )
    many = Work(64, 1, 10.0)
    assert pass_s(mixture, CHIP, BYTES, many, dense) > pass_s(TINY, CHIP, BYTES, many, dense)


def test_a_sparse_model_decodes_faster_than_a_dense_one_of_its_size() -> None:
    sparse, dense = find_model("qwen3-30b-a3b"), find_model("qwen3-32b")
    quick, slow = (decode_s(m, XPU, BYTES, 1, 1, answers(512, 256)) for m in (sparse, dense))
    assert quick is not None
    assert slow is not None
    assert slow > 5 * quick


def test_latent_rows_are_held_by_every_tensor_parallel_chip() -> None:
    latent = find_model("deepseek-v3")
    huge = replace(XPU, memory_bytes=latent.parameters / 8 + 2e9)
    rows = int(2e9 / latent.kv_values_per_token / 2)
    assert prefill_on(latent, huge, BYTES, Split(1, 8, 1), 1, prompts(rows)) is not None
    assert prefill_on(latent, huge, BYTES, Split(1, 8, 1), 1, prompts(rows * 2)) is None
    whole, half = (pass_s(latent, XPU, BYTES, Work(1, 1, 1e6), Split(1, n, 1)) for n in (1, 2))
    assert half > whole / 2  # the context is read by both
