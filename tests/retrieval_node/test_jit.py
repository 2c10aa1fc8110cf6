from __future__ import annotations

import numba
import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node import flat, jit, kernels
from retrieval_node.local import LocalSearcher
from retrieval_node.node import warm_up
from tests.retrieval_node.making import Plan, make


def test_compiles_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def no_cache(**options: object):  # type: ignore[no-untyped-def]
        if options.get("cache"):

            def refuse(_):  # type: ignore[no-untyped-def]
                raise RuntimeError("cannot cache function: no locator available")

            return refuse
        return real(**options)

    monkeypatch.setattr(numba, "njit", no_cache)
    assert jit.compiled(lambda x: x + 1)(2) == 3


def test_no_request_compiles_anything(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Read-only, sliced and odd inputs all use the signatures of the warm-up."""
    warm_up()
    before = kernels.compiled_signatures() | flat.compiled_signatures()
    assert set(before.values()) == {1}
    for number, plan in enumerate(
        [
            Plan(metric=Metric.L2, dead=(3,), shards=2),
            Plan(metric=Metric.COSINE, segments=(200, 50)),
            Plan(exact=True, dead=(1,)),
        ]
    ):
        made = make(tmp_path / f"c{number}", plan)
        searcher = LocalSearcher(made.directory)
        queries = np.frombuffer(made.vectors[:4].tobytes(), dtype=np.float32).reshape(4, -1)
        assert not queries.flags.writeable
        searcher.search(searcher.batch(queries, 5))
        searcher.search(searcher.batch(queries[::2], 5))
        searcher.close()
    assert kernels.compiled_signatures() | flat.compiled_signatures() == before
