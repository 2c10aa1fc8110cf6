"""Two rigs, started once for all tests here and running at the same time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.corpus import animal_documents, sighting_documents
from tests.e2e.rigs import RunningRig, create_collection, running_rig
from tests.llm_node.checkpoints import add_modules, save_tiny_bert, save_tiny_llama

APPLIANCE: dict[str, Any] = {
    "name": "appliance",
    "coordinator": {"port": 0},
    "llm_nodes": [{"name": "llm-0"}],
    "retrieval_nodes": [{"name": "ret-0"}, {"name": "ret-1"}],
}


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRig]:
    """The default rig: ``zoo`` is an exact collection, ``sightings`` an IVF-PQ one."""
    folder = tmp_path_factory.mktemp("appliance")
    sightings = folder / "sightings.jsonl"
    sightings.write_text("".join(json.dumps(d) + "\n" for d in sighting_documents()))
    with running_rig(folder, APPLIANCE) as rig:
        create_collection(rig, "zoo", animal_documents())
        done = rig.command(
            "ingest", str(sightings), "--collection", "sightings", "-c", str(rig.config)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield rig


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random checkpoints: ``writer`` babbles for thousands of tokens, ``reader`` embeds."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_llama(folder / "writer", context=8192)
    add_modules(save_tiny_bert(folder / "reader", positions=512), max_seq_length=256)
    return folder


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningRig]:
    """A rig with local checkpoints, whose answers take long; collection ``notes``."""
    rig = {
        "name": "babbler",
        "coordinator": {"port": 0},
        "llm_nodes": [
            {
                "name": "hf",
                "embedder": str(models / "reader"),
                "generator": f"hf:{models / 'writer'}",
            }
        ],
        "retrieval_nodes": [{"name": "ret", "backend": "faiss"}],
    }
    with running_rig(tmp_path_factory.mktemp("babbler"), rig) as running:
        create_collection(running, "notes", [
            {"id": "cat", "text": "the cat sat on the dog"},
            {"id": "dog", "text": "a dog ran"},
        ])  # fmt: skip
        yield running
