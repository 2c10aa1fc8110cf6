"""The supervisor is killed, a collection is damaged: no orphan, and the rest goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from ragschema.storage.manifest import read_manifest
from tests.e2e.rigs import (
    RunningRig,
    create_collection,
    start_rig,
    stop_rig,
    wait_answers,
    wait_for,
)


@pytest.fixture
def rig_file(models: Path) -> dict[str, Any]:
    """Small, so that it starts fast."""
    return {
        "name": "brief",
        "coordinator": {"port": 0},
        "llm_nodes": [{"name": "llm", "embedder": str(models / "reader")}],
        "retrieval_nodes": [{"name": "ret"}],
    }


def documents_found(rig: RunningRig, collection: str) -> list[str]:
    with rig.client() as client:
        body = {"collection": collection, "text": "the cat", "k": 5}
        found = client.post("/v1/search", json=body).raise_for_status().json()
    return sorted(hit["document_id"] for hit in found["hits"])


def test_after_a_killed_supervisor_and_a_damaged_file(
    tmp_path: Path, rig_file: dict[str, Any]
) -> None:
    first = start_rig(tmp_path, rig_file)
    try:
        wait_answers(first, "/readyz")
        for name in ("sound", "damaged"):
            create_collection(first, name, [{"id": name, "text": "the cat sat on the dog"}])
        assert documents_found(first, "damaged") == ["damaged"]
        family = first.pids()
        assert len(family) >= 3
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(20)
        wait_for(lambda: not any(is_running(pid) for pid in family), 30)
    finally:
        stop_rig(first)
    damage(tmp_path / "data" / "collections" / "damaged")
    second = start_rig(tmp_path, rig_file)
    try:
        wait_answers(second, "/healthz")
        wait_for(lambda: documents_found(second, "sound") == ["sound"])
        check_damage_is_named(second)
    finally:
        leftovers = stop_rig(second)
    assert leftovers == []


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def damage(directory: Path) -> None:
    """Flips one bit in the middle of a shard."""
    path = directory / read_manifest(directory).segments[0].shards[0].path
    raw = path.read_bytes()
    at = len(raw) // 2
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def check_damage_is_named(rig: RunningRig) -> None:
    with rig.client() as client:
        listed = {
            c["name"]: c["error"] for c in client.get("/v1/collections").json()["collections"]
        }
        assert listed["sound"] is None
        assert "shard-0.rag" in listed["damaged"]
        body = {"collection": "damaged", "text": "the cat"}
        refused = client.post("/v1/search", json=body)
        assert refused.status_code in (500, 503)
        assert "shard-0.rag" in refused.json()["error"]["message"]
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "damaged" in ready.json()["error"]["message"]
