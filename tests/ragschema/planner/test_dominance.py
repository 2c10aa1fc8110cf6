"""Undominated rows, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.planner.dominance import undominated


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_definition(seed: int, columns: int) -> None:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 700))
    chips, servers = rng.integers(1, 3, n), rng.integers(-1, 1, n)
    rate = rng.integers(1, 5, n).astype(float)
    finish = rng.integers(1, 6, (n, columns)).astype(float)
    kept = undominated(chips, servers, rate, finish).tolist()

    def beats(a: int, b: int) -> bool:
        alike = chips[a] == chips[b] and servers[a] == servers[b]
        no_worse = rate[a] >= rate[b] and bool((finish[a] <= finish[b]).all())
        equal = rate[a] == rate[b] and bool((finish[a] == finish[b]).all())
        return bool(alike and no_worse and (not equal or a < b))

    wanted = [b for b in range(n) if not any(beats(a, b) for a in range(n))]
    assert kept == wanted
