"""Absolute paths and addresses."""

from __future__ import annotations

from pathlib import Path

from coordinator.supervisor.resolve import anchor_paths, port_of, with_addresses, write_rig
from ragschema.rig import load_rig, parse_rig


def test_model_folders_are_relative_to_the_rig_file(tmp_path: Path) -> None:
    text = "llm_nodes: [{name: a, embedder: models/e, generator: 'hf:../g'}, {name: b}]"
    anchored = anchor_paths(parse_rig(text, "test", tmp_path), tmp_path).llm_nodes
    assert anchored[0].embedder == str(tmp_path / "models" / "e")
    assert anchored[0].generator == f"hf:{tmp_path.parent / 'g'}"
    assert (anchored[1].embedder, anchored[1].generator) == ("minilm", "extractive")


def test_resolved_rig_reads_back_equal(tmp_path: Path) -> None:
    rig = parse_rig("coordinator: {port: 0}", "test", tmp_path)
    addresses = {"llm-0": "127.0.0.1:1", "ret-0": "127.0.0.1:2", "ret-1": "[::1]:3"}
    resolved = with_addresses(rig, addresses, 4)
    write_rig(tmp_path / "r.yaml", resolved)
    assert load_rig(tmp_path / "r.yaml") == resolved
    assert resolved.coordinator.port == 4
    assert port_of("[::1]:3") == 3


def test_a_bitstream_is_relative_to_the_rig_file(tmp_path: Path) -> None:
    text = (
        "retrieval_nodes: [{name: a, device: 'pynq:cards/u250.xclbin'},"
        " {name: b, device: verilator}]"
    )
    anchored = anchor_paths(parse_rig(text, "test", tmp_path), tmp_path).retrieval_nodes
    assert anchored[0].device == f"pynq:{tmp_path / 'cards' / 'u250.xclbin'}"
    assert anchored[1].device == "verilator"
