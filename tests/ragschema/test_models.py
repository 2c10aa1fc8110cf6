"""Shapes of models: sizes that are known, and configurations of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.models import Mla, Moe, find_model


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2.5-7b", 7.07),  # 7.61 with the embedding table a second time
        ("qwen3-30b-a3b", 30.2),
        ("mixtral-8x7b", 46.6),
        ("deepseek-v3", 670.0),
        ("chameleon-dec-s", 0.101),
        ("chameleon-dec-l", 1.259),
    ],
)
def test_parameters_are_those_that_are_published(name: str, billions: float) -> None:
    assert find_model(name).parameters == pytest.approx(billions * 1e9, rel=0.005)


def test_latent_attention_keeps_little() -> None:
    assert find_model("deepseek-v3").kv_values_per_token == 61 * 576


def test_tokens_touch_more_and_more_experts() -> None:
    moe = Moe(8, 2, 16, shared=1)
    assert moe.touched(1) == pytest.approx(3.0)
    assert moe.touched(2) == pytest.approx(1 + 8 * (1 - 0.75**2))
    assert moe.touched(1000) == pytest.approx(9.0)


DENSE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
}


def written(folder: Path, **changes: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(DENSE | changes), encoding="utf-8")
    return str(path)


def test_a_configuration_is_read(tmp_path: Path) -> None:
    model = find_model(written(tmp_path))
    assert (model.head_dim, model.kv_heads, model.ffn) == (16, 2, 128)
    assert model.moe is None
    assert find_model(written(tmp_path, head_dim=32)).head_dim == 32


def test_experts_and_latent_attention_are_read(tmp_path: Path) -> None:
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    assert find_model(written(tmp_path, **experts)).moe == Moe(8, 2, 128)
    routed = {
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "moe_intermediate_size": 32,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
    }
    latent = {
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "q_lora_rank": None,
    }
    model = find_model(written(tmp_path, **routed, **latent))
    assert model.moe == Moe(64, 6, 32, 2, 1)
    assert model.mla == Mla(16, 8, 8, 8, None)


def test_the_decoder_of_a_larger_model_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"vision_config": {}, "text_config": DENSE}), encoding="utf-8")
    assert find_model(str(path)).layers == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": None}, "model.hidden_size"),
        ({"num_hidden_layers": 0}, "model.num_hidden_layers"),
        ({"vocab_size": "many"}, "model.vocab_size"),
        ({"num_key_value_heads": True}, "model.num_key_value_heads"),
        ({"num_experts": 8}, "model.num_experts_per_tok"),
    ],
)
def test_what_a_configuration_lacks_is_named(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        find_model(written(tmp_path, **changes))
    assert caught.value.field == field


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(NotFound):
        find_model(str(path))
    for text in ("{", "[]", "[" * 100_000):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput):
            find_model(str(path))
