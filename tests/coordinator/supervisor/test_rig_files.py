"""The example rigs load, and the manual knows every key of a rig file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from coordinator.demo.rig import demo_rig
from coordinator.supervisor.resolve import write_rig
from ragschema.generation import GenerationConfig, IntervalConfig, KnnConfig
from ragschema.llm_rig import EngineOptions
from ragschema.refining import RerankConfig, RewriteConfig
from ragschema.rig import (
    BatchConfig,
    CoalesceConfig,
    CoordinatorConfig,
    LimitsConfig,
    LlmNodeConfig,
    RetrievalNodeConfig,
    RigConfig,
    StagesConfig,
    load_rig,
    parse_rig,
)

REPO = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((REPO / "examples" / "rigs").glob("*.yaml"))
MANUAL = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_examples_are_there() -> None:
    names = {path.stem for path in EXAMPLES}
    assert names >= {"default", "demo", "faiss", "openai-upstream", "two-hosts", "replicas", "simd"}
    assert names >= {"disaggregated", "interval", "refined"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_loads_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    rig = load_rig(path)
    write_rig(tmp_path / "again.yaml", rig)
    assert load_rig(tmp_path / "again.yaml") == rig
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_default_example_is_the_default_rig() -> None:
    folder = REPO / "examples" / "rigs"
    assert load_rig(folder / "default.yaml") == parse_rig("", "default", folder)


def test_demo_example_is_the_demo_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    assert load_rig(REPO / "examples" / "rigs" / "demo.yaml") == demo_rig(REPO / ".ragrig" / "demo")


@pytest.mark.parametrize(
    "cls",
    [
        RigConfig,
        CoordinatorConfig,
        StagesConfig,
        BatchConfig,
        LimitsConfig,
        LlmNodeConfig,
        RetrievalNodeConfig,
        CoalesceConfig,
        GenerationConfig,
        IntervalConfig,
        KnnConfig,
        EngineOptions,
        RerankConfig,
        RewriteConfig,
    ],
)
def test_manual_describes_every_key(cls: type) -> None:
    missing = [f.name for f in fields(cls) if f"`{f.name}`" not in MANUAL]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_k", "100"), ("prompt_tokens", "3000"), ("max_inflight", "512")],
)
def test_manual_states_the_real_default(name: str, value: str) -> None:
    assert str(getattr(LimitsConfig(), name)) == value
    assert f"| `{name}` | {value} |" in MANUAL
