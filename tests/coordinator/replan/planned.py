"""A workload, a profile and a plan for tests: a model that two cores serve twice as fast as one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from coordinator.replan.settings import ReplanSettings
from ragschema.here import Machine
from ragschema.local import local_pool
from ragschema.planner.assemble import SearchSpace
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import write_plan
from ragschema.planner.problem import Decoding
from ragschema.profile import FORMAT, Profile, RoleProfile, write_profile
from ragschema.workload import load_schema
from tests.ragschema.profiles import role

#: What fake nodes count of every question and answer.
PROMPT, OUTPUT = 11, 3
MACHINE = Machine("made up", 2, 16.0, "avx2")
_CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096,
    "torch_dtype": "float32", "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Paths of one planned deployment."""

    folder: Path
    schema: Path
    profile: Path
    plan: Path

    def settings(self, **changes: Any) -> ReplanSettings:
        run = self.folder / "replan"
        run.mkdir(exist_ok=True)
        plain = ReplanSettings(
            mode="auto", plan=str(self.plan), schema=str(self.schema), profile=str(self.profile),
            folder=str(run), window_s=2.0, dwell_s=0.5, limit_s=120.0,
        )  # fmt: skip
        return replace(plain, **changes)


def profile_of(machine: Machine, scan_s: float) -> Profile:
    sizes = {"batch": [1, 2, 4, 8], "tokens": [1, 2048]}
    roles: list[RoleProfile] = []
    for threads in (1, 2):
        each = (
            role("prefill", "hf:writer", sizes,
                 lambda batch, tokens, n=threads: 2e-3 * batch * tokens / n, ("batch*tokens",)),
            role("decode", "hf:writer", sizes,
                 lambda batch, tokens, n=threads: (0.02 + 0.002 * batch) / n, ("1", "batch")),
            role("pq_scan", "simd", {"batch": [1, 64], "codes": [1, 1e6]},
                 lambda batch, codes: scan_s + 1e-9 * codes, ("1", "codes")),
        )  # fmt: skip
        roles += [replace(one, threads=threads) for one in each]
    return Profile(FORMAT, machine, tuple(roles))


def files(
    folder: Path, machine: Machine = MACHINE, scan_s: float = 1e-4, scans: int | None = None
) -> Files:
    """A plan for one core.

    Args:
        scan_s: seconds of a scan, whatever its batch.
        scans: batch of scans that the plan is made to have; None: the best.
    """
    found = Files(*(folder / name for name in ("", "schema.yaml", "profile.json", "plan.yaml")))
    model = folder / "writer" / "config.json"
    model.parent.mkdir()
    model.write_text(json.dumps(_CONFIG))
    schema = {
        "version": 1,
        "name": "cats",
        "generator": {"model": str(model), "weights": "fp32"},
        "lengths": {"question": 4, "prompt": PROMPT, "output": OUTPUT},
        "database": {"vectors": 1000, "dims": 8, "bytes_per_vector": 8, "index": "ivfpq",
                     "nlist": 16, "scan_share": 0.25},
    }  # fmt: skip
    found.schema.write_text(yaml.safe_dump(schema))
    profile = profile_of(machine, scan_s)
    write_profile(profile, found.profile)
    pool = replace(local_pool(machine, profile, False), max_chips=1)
    plan = make_plan(load_schema(found.schema), pool, space=SearchSpace(decoding=Decoding.TOGETHER))
    assert isinstance(plan, Plan), plan
    write_plan(plan, found.plan)
    if scans is not None:
        document = yaml.safe_load(found.plan.read_text())
        document["groups"][0]["stages"][0]["batch"] = scans
        found.plan.write_text(yaml.safe_dump(document))
    return found
