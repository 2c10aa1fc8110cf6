"""The filter benchmark counts what lies in the first lists."""

from __future__ import annotations

import numpy as np

from bench.datasets import Dataset
from bench.filters import K, Lists, compare


def test_recall_is_of_rows_in_the_first_lists() -> None:
    rng = np.random.default_rng(6)
    base = rng.standard_normal((3000, 8)).astype(np.float32)
    lists = Lists.train(Dataset(base, base[:20] + np.float32(0.01), 6, 1), 16, 6)
    everything = np.ones(3000, bool)
    recalls = [lists.recall(everything, n) for n in range(17)]
    assert recalls[0] == 0.0
    assert recalls[16] == 1.0
    assert recalls == sorted(recalls)
    few = np.zeros(3000, bool)
    few[: K - 1] = True
    assert lists.recall(few, 16) == 1.0
    told = compare(lists, few, "rows", 2)
    assert (told["grown_lists"], told["recall_grown"]) == (16, 1.0)
    assert told["recall_same_nprobe"] < 1.0
