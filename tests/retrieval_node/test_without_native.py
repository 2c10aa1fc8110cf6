"""Where the extension was not built, collections are searched all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node.local import LocalSearcher
from tests.retrieval_node.making import Plan, clustered, make

#: Searches a collection and prints rows, in a process that finds no extension.
SEARCH = """
import json, logging, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from retrieval_node.local import LocalSearcher
from retrieval_node.native.loader import native
from ragschema.types import SearchBatch
assert native() is None
logging.basicConfig(level="WARNING")
searcher = LocalSearcher(Path(sys.argv[1]))
queries = np.load(sys.argv[2], allow_pickle=False)
found = searcher.search(searcher.batch(queries, 5, 4))
exact = SearchBatch(searcher.shard_set.snapshot, (0, 1), queries, None, 5, exact=True)
print(json.dumps({
    "backend": searcher._engine.backend.name,
    "rows": found.row_ids.tolist(),
    "exact": searcher.search(exact).row_ids.tolist(),
    "found": searcher.find(queries, 5, 4).rows.tolist(),
}))
"""


@pytest.mark.parametrize(
    "plan",
    [
        Plan(segments=(300, 80, 20), shards=2, dead=(3, 310, 390), fresh=True),
        Plan(metric=Metric.COSINE, segments=(300,), shards=2),
        Plan(exact=True, segments=(60, 30), shards=2, dead=(1,)),
    ],
    ids=["fresh rows", "cosine", "exact"],
)
def test_the_same_rows_are_found_by_faiss_and_numpy(plan: Plan, tmp_path: Path) -> None:
    made = make(tmp_path / "c", plan)
    queries = clustered(4, made.manifest.dim, 9, plan.metric)
    np.save(tmp_path / "queries.npy", queries)
    ran = subprocess.run(
        [sys.executable, "-c", SEARCH, str(made.directory), str(tmp_path / "queries.npy")],
        env=os.environ | {"RAGRIG_NO_NATIVE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["backend"] == "faiss"
    assert "is replaced by faiss" in ran.stderr
    searcher = LocalSearcher(made.directory, "simd")
    # Refined and exact distances are the same bits; only the scan before differs.
    assert answer["rows"] == searcher.search(searcher.batch(queries, 5, 4)).row_ids.tolist()
    assert answer["found"] == answer["rows"]
    everything = np.setdiff1d(np.arange(len(made.vectors)), plan.dead)
    for rows in answer["exact"]:
        assert set(rows) <= set(everything.tolist())
        assert len(set(rows)) == 5
    searcher.close()
