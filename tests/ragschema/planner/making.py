"""Small search problems for tests."""

from __future__ import annotations

import math

import numpy as np

from ragschema.hardware.devices import Accelerator
from ragschema.models import Transformer
from ragschema.planner.cost.batches import Sequences, Timed
from ragschema.planner.cost.inference import Precision
from ragschema.planner.problem import Problem, Sharing
from ragschema.planner.stages import StageKind, StageTable
from ragschema.planner.timing import LanguageModel


def table(
    name: str,
    rows: dict[int, list[float | None]],
    kind: StageKind = StageKind.CHIP,
    delay: bool = False,
) -> StageTable:
    """Latencies by count; batches are 1, 2, 4, ... and None is not possible."""
    width = len(next(iter(rows.values())))
    latency = np.array([[math.inf if x is None else x for x in row] for row in rows.values()])
    return StageTable(name, kind, tuple(rows), tuple(1 << i for i in range(width)), latency, delay)


def two_stages(sharing: Sharing = Sharing.ANY, uniform: bool = False) -> Problem:
    """Encode and prefill on 1 or 2 chips each, decode on 1 or 2."""
    return Problem(
        (
            table("encode", {1: [1.0, 1.6], 2: [0.6, 0.9]}),
            table("prefill", {1: [2.0, 2.4], 2: [1.1, 1.3]}),
            table("decode", {1: [4.0, 4.0], 2: [2.0, 2.0]}, StageKind.DECODE),
        ),
        min_chips=1,
        max_chips=6,
        uniform_batch=uniform,
        sharing=sharing,
    )


def prefill_s(
    model: Transformer, chip: Accelerator, precision: Precision, n: int, batch: int, read: Sequences
) -> float | None:
    """Seconds of a batch of prompts on the best split of n chips; None: it fits none."""
    return _seconds(LanguageModel("m", model, precision, {}).reading(read)(chip, n, batch))


def decode_s(
    model: Transformer,
    chip: Accelerator,
    precision: Precision,
    n: int,
    batch: int,
    written: Sequences,
) -> float | None:
    """The same of a running batch that writes its answers."""
    return _seconds(LanguageModel("m", model, precision, {}).writing(written)(chip, n, batch))


def _seconds(timed: Timed | None) -> float | None:
    return None if timed is None else timed.seconds
