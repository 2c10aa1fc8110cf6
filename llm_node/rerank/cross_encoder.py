"""A cross-encoder: query and passage in one text, a score out, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from llm_node.checkpoint import Checkpoint, fingerprint, inspect_checkpoint
from llm_node.embed.layout import max_tokens_of
from llm_node.libraries import first_line
from llm_node.pretrained import load_pretrained
from llm_node.roles import TokenizedPair
from llm_node.tokens import load_tokenizer
from ragschema.errors import CorruptData, InternalError, InvalidInput
from ragschema.types import F32, ModelInfo, Role

_FIELD = "reranker"


def load(reference: str) -> CrossEncoder:
    """Loads a checkpoint directory and scores two texts with it.

    Raises:
        InvalidInput, CorruptData: naming the file at fault.
    """
    checkpoint = inspect_checkpoint(Path(reference).expanduser().absolute(), _FIELD)
    tokenizer = load_tokenizer(checkpoint.directory / "tokenizer.json")
    encoder = CrossEncoder(checkpoint, tokenizer, _load_model(checkpoint))
    _warm_up(encoder)
    return encoder


def _load_model(checkpoint: Checkpoint) -> torch.nn.Module:
    from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

    model, report = load_pretrained(AutoModelForSequenceClassification, checkpoint, _FIELD)
    lost = sorted(str(k) for k in (*report["missing_keys"], *report["mismatched_keys"]))
    if lost:
        raise CorruptData(
            f"{checkpoint.weights[0]} lacks {lost[0]} ({len(lost)} weights in all)",
            field=_FIELD,
            hint="use a checkpoint that was trained to score pairs, with its classifier",
        )
    if model.config.num_labels not in (1, 2):
        raise InvalidInput(
            f"{checkpoint.directory} sorts into {model.config.num_labels} classes",
            field=_FIELD,
            hint="use a model with one score, or with two classes of which the second is relevant",
        )
    module: torch.nn.Module = model.eval()
    return module


def _warm_up(encoder: CrossEncoder) -> None:
    """Two texts of different length, so that a model that cannot be padded fails at start."""
    try:
        encoder.forward(encoder.encode("warm", ["up", "up " * 8]))
    except InternalError as error:
        raise CorruptData(error.message, field=_FIELD, hint="its weights may be damaged") from error
    except Exception as error:  # foreign code, foreign shapes
        raise InvalidInput(
            f"the reranker cannot score here: {first_line(error)}", field=_FIELD
        ) from error


class CrossEncoder:
    """A Reranker on the CPU, float32. Methods block and are not re-entrant."""

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, model: torch.nn.Module
    ) -> None:
        self._model: Any = model
        self._limits = _Limits.of(tokenizer, max_tokens_of(checkpoint, {}))
        self._plain = tokenizer
        self._cutting = Tokenizer.from_str(tokenizer.to_str())
        self._cutting.enable_truncation(self._limits.pair, strategy="only_second")
        self._pad_id = int(checkpoint.config.get("pad_token_id") or 0)
        self._typed = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1
        self._info = ModelInfo(
            role=Role.RERANK,
            name=checkpoint.directory.name,
            fingerprint=fingerprint(checkpoint),
            dim=None,
            max_input_tokens=self._limits.pair,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def encode(self, query: str, texts: Sequence[str]) -> list[TokenizedPair]:
        """Pairs within the model's maximum: the query gets half at most, the text is cut."""
        query = self._cut(query)
        encodings = self._cutting.encode_batch([(query, text) for text in texts])
        return [
            TokenizedPair(tuple(x.ids), bool(x.overflowing), tuple(x.type_ids)) for x in encodings
        ]

    def _cut(self, query: str) -> str:
        encoding = self._plain.encode(query, add_special_tokens=False)
        if len(encoding.ids) <= self._limits.query:
            return query
        return query[: encoding.offsets[self._limits.query - 1][1]]

    def forward(self, batch: Sequence[TokenizedPair]) -> F32:
        """float32 [len(batch)], a score that is higher for what answers better.

        Raises:
            InternalError: the model produced a score that is not finite.
        """
        longest = max(len(pair.ids) for pair in batch)
        shape = (len(batch), longest)
        ids = torch.full(shape, self._pad_id, dtype=torch.long)
        mask, types = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, pair in enumerate(batch):
            size = len(pair.ids)
            ids[row, :size] = torch.tensor(pair.ids, dtype=torch.long)
            types[row, :size] = torch.tensor(pair.types, dtype=torch.long)
            mask[row, :size] = 1
        kinds = {"token_type_ids": types} if self._typed else {}
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask, **kinds).logits.float()
        # Of two classes the second is the relevant one; the difference is its log odds.
        found = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        scores: F32 = found.numpy()
        if not np.isfinite(scores).all():
            raise InternalError(f"the reranker {self._info.name} produced NaN or infinity")
        return scores


@dataclass(frozen=True)
class _Limits:
    """Tokens of a pair, special ones included, and of its query."""

    pair: int
    query: int

    @staticmethod
    def of(tokenizer: Tokenizer, max_tokens: int) -> _Limits:
        special = tokenizer.num_special_tokens_to_add(True)
        query = (max_tokens - special) // 2
        if query < 1:
            raise InvalidInput(f"the model reads {max_tokens} tokens only", field=_FIELD)
        return _Limits(max_tokens, query)
