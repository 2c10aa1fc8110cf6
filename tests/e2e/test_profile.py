"""A whole profile of a small rig with a language model of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from ragschema.here import this_machine, usable_cores
from ragschema.profile import read_profile, require_machine
from tests.e2e.rigs import RAGRIG
from tests.llm_node.checkpoints import save_tiny_cross_encoder

QUICK_LIMIT_S = 180


def test_a_quick_profile_of_every_role(tmp_path: Path, models: Path) -> None:
    """Within its three minutes, of this machine, and its models tell what was measured."""
    judge = save_tiny_cross_encoder(tmp_path / "judge", positions=256)
    (tmp_path / "rig.yaml").write_text(
        json.dumps(
            {
                "llm_nodes": [
                    {
                        "name": "llm",
                        "embedder": str(models / "reader"),
                        "generator": f"hf:{models / 'writer'}",
                        "reranker": str(judge),
                        "roles": ["embed", "generate", "rerank", "index_scan"],
                        "threads": 1,
                    }
                ],
                "retrieval_nodes": [{"name": "ret", "backend": "simd"}],
            }
        )
    )
    started_s = time.monotonic()
    done = subprocess.run(
        [str(RAGRIG), "profile", "--quick", "-c", "rig.yaml", "--vectors", "3000", "--dim", "32"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started_s < QUICK_LIMIT_S
    profile = read_profile(tmp_path / "profile.json")
    require_machine(profile, this_machine())
    beside = {"crowded"} if usable_cores() >= 2 else set()
    assert {role.role for role in profile.roles} == {
        "embed", "index_scan", "pq_scan", "retrieval_call", "prefill", "decode", "mixed",
        "kv_transfer", "rerank", "coordinator", *beside,
    }, done.stdout  # fmt: skip
    for role in profile.roles:
        for sample in role.samples:
            assert len(sample.seconds) >= 2, role.role
    assert profile.find("index_scan", "index_scan:cpu").range_of("nlist")[0] > 1
    one = {"batch": 1.0, "tokens": 128.0}
    four = {"batch": 4.0, "tokens": 128.0}
    prefill = profile.find("prefill")
    assert prefill.predict(one).seconds < prefill.predict(four).seconds
    scan = profile.find("pq_scan", "simd")
    codes = scan.range_of("codes")
    assert codes[0] < codes[1]
    assert 0 < scan.predict({"batch": 8.0, "nprobe": 16.0, "codes": sum(codes) / 2}).seconds < 1
