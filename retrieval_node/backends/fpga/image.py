"""How a segment's codes lie in a card's channels, and the way back.

A beat is 64 bytes, or one code where codes are longer. A channel's beat holds
L = beat / code_bytes codes, all channels together P of them. Code i of a list is
in beat ``first_beat + i // P``, channel ``i % P // L``, slot ``i % L``, so every
channel reads the same beats. Lists start at multiples of 64 code slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.types import I64, U8
from retrieval_node.backends.fpga.device import BEAT_BYTES
from retrieval_node.fixedpoint_rows import CodeBiases
from retrieval_node.layout import LANES, group_list, lane_offsets, ungroup_list
from retrieval_node.segment import SegmentRows

_BIAS_BYTES = 2


@dataclass(frozen=True)
class ImageShape:
    """Widths of an image.

    Attributes:
        m: bytes of a code; code_bytes: from one to the next.
        biased: whether codes have biases.
    """

    channels: int
    m: int
    code_bytes: int
    biased: bool = False

    @property
    def beat_bytes(self) -> int:
        return max(BEAT_BYTES, self.code_bytes)

    @property
    def slots(self) -> int:
        """L, codes of one channel's beat."""
        return self.beat_bytes // self.code_bytes

    @property
    def lanes(self) -> int:
        """P, codes of a beat over all channels."""
        return self.slots * self.channels

    @property
    def align_beats(self) -> int:
        """Lists start at multiples of it: whole blocks of 64 slots, whole beats of biases."""
        whole = LANES // math.gcd(LANES, self.lanes)
        per_beat = BEAT_BYTES // _BIAS_BYTES
        return math.lcm(whole, per_beat // math.gcd(per_beat, self.slots)) if self.biased else whole


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """Where the lists of a segment lie.

    Attributes:
        first_beats: int64 [nlist + 1].
    """

    shape: ImageShape
    first_beats: I64

    @property
    def code_bytes(self) -> int:
        """Bytes of codes in one channel, at least one beat."""
        return max(1, int(self.first_beats[-1])) * self.shape.beat_bytes

    @property
    def bias_bytes(self) -> int:
        """Bytes of biases in one channel; 0 without them."""
        if not self.shape.biased:
            return 0
        return max(1, int(self.first_beats[-1])) * self.shape.slots * _BIAS_BYTES


def plan_image(list_offsets: I64, shape: ImageShape) -> ImagePlan:
    """Places lists one after the other, from their row offsets."""
    beats = -(-np.diff(list_offsets) // shape.lanes)
    beats = -(-beats // shape.align_beats) * shape.align_beats
    first = np.zeros(len(list_offsets), dtype=np.int64)
    np.cumsum(beats, out=first[1:])
    return ImagePlan(shape, first)


def fill_channels(
    segment: SegmentRows, plan: ImagePlan, codes: Sequence[U8], biases: Sequence[U8],
    encoder: CodeBiases | None,
) -> None:  # fmt: skip
    """Writes a segment's codes, and their biases, into one buffer per channel.

    Args:
        codes: per channel, uint8 of ``plan.code_bytes`` or more; zeroed first.
        biases: the same of ``plan.bias_bytes``; empty without an encoder.
    """
    assert segment.codes is not None, "a coded segment"
    shape, lanes = plan.shape, lane_offsets(segment.list_offsets)
    for buffer in (*codes, *biases):
        buffer[:] = 0
    for number in np.flatnonzero(np.diff(segment.list_offsets)).tolist():
        rows = int(segment.list_offsets[number + 1] - segment.list_offsets[number])
        grouped = segment.codes[lanes[number] * shape.m : lanes[number + 1] * shape.m]
        own = ungroup_list(grouped, rows, shape.m)
        first = int(plan.first_beats[number])
        padded = np.zeros((-(-rows // shape.lanes) * shape.lanes, shape.code_bytes), np.uint8)
        padded[:rows, : shape.m] = own
        _deal(padded, codes, first * shape.beat_bytes, shape)
        if encoder is not None:
            words = np.zeros(len(padded), np.uint16)
            words[:rows] = encoder.encode(number, own)
            raw = words.view(np.uint8).reshape(-1, _BIAS_BYTES)
            _deal(raw, biases, first * shape.slots * _BIAS_BYTES, shape)


def _deal(slots: U8, channels: Sequence[U8], at: int, shape: ImageShape) -> None:
    """Deals code slots [beats * P, bytes] to the channels, from byte ``at`` of each."""
    per_beat = shape.slots * slots.shape[1]
    beats = slots.reshape(-1, shape.channels, per_beat)
    for channel, buffer in enumerate(channels):
        part = buffer[at : at + len(beats) * per_beat]
        part.reshape(-1, per_beat)[:] = beats[:, channel]


def _gather(channels: Sequence[U8], at: int, beats: int, slot_bytes: int, shape: ImageShape) -> U8:
    """The way back: uint8 [beats * P, slot_bytes]."""
    per_beat = shape.slots * slot_bytes
    parts = [buffer[at : at + beats * per_beat].reshape(beats, per_beat) for buffer in channels]
    return np.stack(parts, axis=1).reshape(-1, slot_bytes)


def _aligned(nbytes: int) -> U8:
    """Memory whose blocks of 64 codes do not straddle cache lines."""
    memory = np.empty(nbytes + LANES, dtype=np.uint8)
    start = -memory.ctypes.data % LANES
    return memory[start : start + nbytes]


class GroupedImage:
    """A card's codes regrouped for the compiled kernels, list by list as they are asked for.

    Args:
        codes, biases: device memory per channel; biases empty without them.
    """

    def __init__(self, shape: ImageShape, codes: Sequence[U8], biases: Sequence[U8]) -> None:
        self.shape = shape
        self._codes, self._biases = codes, biases
        self._columns = shape.m + (2 if shape.biased else 0)
        self._beats = len(codes[0]) // shape.beat_bytes
        slots = self._beats * shape.lanes
        self.grouped: U8 = _aligned(-(-slots // LANES) * LANES * self._columns)
        self._rows: NDArray[np.uint32] = np.zeros(self._beats + 1, dtype=np.uint32)

    def need(self, first_beats: NDArray[np.uint32], rows: NDArray[np.uint32]) -> None:
        """Makes sure that lists are regrouped; those outside memory are left to the scan."""
        inside = first_beats.astype(np.int64) * self.shape.lanes + rows <= (
            self._beats * self.shape.lanes
        )
        first_beats, rows = first_beats[inside], rows[inside]
        missing = np.flatnonzero(self._rows[first_beats] != rows)
        for first, n in zip(first_beats[missing].tolist(), rows[missing].tolist(), strict=True):
            if self._rows[first] != n:
                self._regroup(first, n)

    def _regroup(self, first: int, rows: int) -> None:
        shape = self.shape
        beats = -(-rows // shape.lanes)
        own = _gather(self._codes, first * shape.beat_bytes, beats, shape.code_bytes, shape)
        codes = own[:rows, : shape.m]
        if shape.biased:
            at = first * shape.slots * _BIAS_BYTES
            extra = _gather(self._biases, at, beats, _BIAS_BYTES, shape)[:rows]
            codes = np.concatenate([codes, extra], axis=1)
        start = first * shape.lanes * self._columns
        grouped = group_list(codes)
        self.grouped[start : start + len(grouped)] = grouped
        self._rows[first] = rows
