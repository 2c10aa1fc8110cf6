from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_node.checkpoint import fingerprint, inspect_checkpoint
from ragschema.errors import CorruptData, InvalidInput


@pytest.fixture
def copy(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "copy"))


def test_whole_checkpoint_is_accepted(copy: Path) -> None:
    found = inspect_checkpoint(copy, "generator")
    assert found.config["model_type"] == "llama"
    assert found.weights == (copy / "model.safetensors",)


def test_missing_directory_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no model directory .*nowhere") as caught:
        inspect_checkpoint(tmp_path / "nowhere", "embedder")
    assert caught.value.field == "embedder"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InvalidInput, match=name):
        inspect_checkpoint(copy, "generator")


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_broken_config_is_named(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(CorruptData, match=r"config\.json"):
        inspect_checkpoint(copy, "generator")


def test_pickled_weights_are_refused_and_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match=r"pytorch_model\.bin is refused: pickled") as caught:
        inspect_checkpoint(copy, "generator")
    assert "safetensors" in (caught.value.hint or "")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_weights_are_found(copy: Path, keep: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptData, match=r"model\.safetensors"):
        inspect_checkpoint(copy, "generator")


def test_garbage_header_is_found(copy: Path) -> None:
    path = copy / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[8:40] = b"\xff" * 32
    path.write_bytes(bytes(raw))
    with pytest.raises(CorruptData, match=r"model\.safetensors is not a safetensors file"):
        inspect_checkpoint(copy, "generator")


def test_index_lists_its_files(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}}))
    assert len(inspect_checkpoint(copy, "generator").weights) == 1
    index.write_text(json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(InvalidInput, match="model-00002-of-00002"):
        inspect_checkpoint(copy, "generator")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "model.bin"])
def test_index_may_not_point_elsewhere(copy: Path, name: str) -> None:
    (copy / "model.safetensors").unlink()
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CorruptData, match="names"):
        inspect_checkpoint(copy, "generator")


def test_fingerprint_follows_the_content(copy: Path) -> None:
    before = fingerprint(inspect_checkpoint(copy, "generator"))
    assert before == fingerprint(inspect_checkpoint(copy, "generator"))
    path = copy / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    after = fingerprint(inspect_checkpoint(copy, "generator"))
    assert after != before
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert fingerprint(inspect_checkpoint(copy, "generator")) not in (before, after)
