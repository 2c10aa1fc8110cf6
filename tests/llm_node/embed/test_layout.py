from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_node.embed.layout import Pooling, read_sentence_model
from ragschema.errors import CorruptData, InvalidInput
from ragschema.types import EmbedPurpose
from tests.llm_node.checkpoints import add_modules, save_tiny_bert


def test_bundled_minilm_is_found_and_understood() -> None:
    layout = read_sentence_model("minilm")
    assert (layout.name, layout.pooling, layout.max_tokens) == ("minilm", Pooling.MEAN, 256)
    assert layout.prompts == {}


def test_plain_encoder_is_pooled_by_mean(tmp_path: Path) -> None:
    layout = read_sentence_model(str(save_tiny_bert(tmp_path / "plain", positions=24)))
    assert (layout.name, layout.pooling, layout.max_tokens) == ("plain", Pooling.MEAN, 24)


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode": "mean", "embedding_dimension": 16}, Pooling.MEAN),
        ({"pooling_mode": ["cls"]}, Pooling.CLS),
    ],
)
def test_both_spellings_of_pooling(
    tiny_bert: Path, pooling: dict[str, object], wanted: Pooling
) -> None:
    add_modules(tiny_bert, pooling=pooling)
    assert read_sentence_model(str(tiny_bert)).pooling is wanted


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
)
def test_pooling_that_cannot_be_done_is_refused(
    tiny_bert: Path, pooling: dict[str, object]
) -> None:
    add_modules(tiny_bert, pooling=pooling)
    with pytest.raises(InvalidInput, match=r"1_Pooling/config\.json"):
        read_sentence_model(str(tiny_bert))


def test_unknown_module_is_refused(tiny_bert: Path) -> None:
    add_modules(tiny_bert, kinds=("Transformer", "Pooling", "Dense"))
    with pytest.raises(InvalidInput, match="Transformer -> Pooling -> Dense"):
        read_sentence_model(str(tiny_bert))


def test_modules_may_not_point_outside(tiny_bert: Path) -> None:
    path = tiny_bert / "modules.json"
    path.write_text(path.read_text().replace("1_Pooling", "../elsewhere"))
    with pytest.raises(CorruptData, match="points outside"):
        read_sentence_model(str(tiny_bert))


def test_missing_pooling_file_is_named(tiny_bert: Path) -> None:
    (tiny_bert / "1_Pooling" / "config.json").unlink()
    with pytest.raises(InvalidInput, match=r"1_Pooling/config\.json is missing"):
        read_sentence_model(str(tiny_bert))


def test_prompts_by_purpose(tiny_bert: Path) -> None:
    add_modules(tiny_bert, prompts={"query": "query: ", "document": "passage: "})
    prompts = read_sentence_model(str(tiny_bert)).prompts
    assert prompts == {EmbedPurpose.QUERY: "query: ", EmbedPurpose.PASSAGE: "passage: "}


def test_default_prompt_serves_both(tiny_bert: Path) -> None:
    described = {"prompts": {"all": "the "}, "default_prompt_name": "all"}
    path = tiny_bert / "config_sentence_transformers.json"
    path.write_text(json.dumps(described))
    assert set(read_sentence_model(str(tiny_bert)).prompts.values()) == {"the "}


def test_offset_positions_are_left_out(tmp_path: Path) -> None:
    directory = save_tiny_bert(tmp_path / "plain", positions=514)
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "roberta", "pad_token_id": 1}
    (directory / "config.json").write_text(json.dumps(config))
    assert read_sentence_model(str(directory)).max_tokens == 512
