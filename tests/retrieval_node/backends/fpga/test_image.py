"""Codes dealt to channels, and what the emulated card makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node.backends.fpga.image import (
    GroupedImage,
    ImageShape,
    fill_channels,
    plan_image,
)
from retrieval_node.fixedpoint_rows import CodeBiases
from retrieval_node.layout import group_list
from tests.retrieval_node.backends.fpga.cards import load
from tests.retrieval_node.native.contract_reference import Shape

SIZES = (70, 0, 1, 129, 16)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("m", "code_bytes", "channels"),
    [(8, 8, 4), (5, 8, 1), (16, 16, 3), (48, 64, 4), (64, 64, 32), (80, 128, 2), (16, 16, 6)],
)
def test_codes_come_back_as_they_went(m: int, code_bytes: int, channels: int, biased: bool) -> None:
    loaded = load(Shape(Metric.L2, True, m, 1, (SIZES,)), m + channels)
    (segment,) = loaded.shard_set.shards[0].segments
    index = loaded.shard_set.index
    assert index is not None
    encoder = None
    if biased:
        encoder = CodeBiases.of(index.centroids, index.codebooks, index.shift, True)
    shape = ImageShape(channels, m, code_bytes, biased)
    plan = plan_image(segment.list_offsets, shape)
    codes = [np.full(plan.code_bytes, 7, np.uint8) for _ in range(channels)]
    biases = [np.full(plan.bias_bytes, 7, np.uint8) for _ in range(channels if biased else 0)]
    fill_channels(segment, plan, codes, biases, encoder)
    image = GroupedImage(shape, codes, biases)
    rows = np.array(SIZES, dtype=np.uint32)
    held = rows > 0
    image.need(plan.first_beats[:-1][held].astype(np.uint32), rows[held])
    made = loaded.made.segments[0]
    for number in np.flatnonzero(held).tolist():
        own = made.codes[made.offsets[number] : made.offsets[number + 1]]
        if encoder is not None:
            extra = encoder.encode(number, own).view(np.uint8).reshape(-1, 2)
            own = np.concatenate([own, extra], axis=1)
        start = int(plan.first_beats[number]) * shape.lanes * own.shape[1]
        want = group_list(own)
        np.testing.assert_array_equal(image.grouped[start : start + len(want)], want)


def test_where_a_code_lies() -> None:
    """M 16, three channels: 12 codes a beat, code 17 in beat 1, channel 1, slot 1."""
    loaded = load(Shape(Metric.IP, True, 16, 1, ((30, 20),)), 1)
    (segment,) = loaded.shard_set.shards[0].segments
    plan = plan_image(segment.list_offsets, ImageShape(3, 16, 16))
    codes = [np.zeros(plan.code_bytes, np.uint8) for _ in range(3)]
    fill_channels(segment, plan, codes, [], None)
    own = loaded.made.segments[0].codes
    assert codes[1][64 + 16 : 64 + 32].tolist() == own[17].tolist()
    assert plan.first_beats.tolist() == [0, 16, 32]  # 16 beats are 192 slots, 3 blocks of 64
    assert codes[2][16 * 64 : 16 * 64 + 16].tolist() == own[30 + 8].tolist()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("code_bytes", [8, 16, 32, 64])
def test_lists_start_at_blocks_of_slots_and_whole_beats_of_biases(
    channels: int, code_bytes: int
) -> None:
    for biased in (False, True):
        shape = ImageShape(channels, code_bytes, code_bytes, biased)
        assert shape.align_beats * shape.lanes % 64 == 0
        if biased:
            assert shape.align_beats * shape.slots % 32 == 0


def test_a_list_seen_with_another_length_is_regrouped() -> None:
    shape = ImageShape(1, 8, 8)
    codes = np.arange(128 * 8, dtype=np.uint32).astype(np.uint8)
    image = GroupedImage(shape, [codes], [])
    first = np.zeros(1, np.uint32)
    for rows in (100, 64, 65, 100):
        image.need(first, np.array([rows], np.uint32))
        want = group_list(codes.reshape(-1, 8)[:rows])
        assert image.grouped[: len(want)].tolist() == want.tolist()
