"""A sentence encoder: tokens in, unit vectors out, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from llm_node.checkpoint import fingerprint
from llm_node.config import EmbedDtype
from llm_node.embed.layout import Pooling, SentenceModel, read_sentence_model
from llm_node.pretrained import load_pretrained
from llm_node.roles import TokenizedText
from llm_node.tiles import tiles
from llm_node.tokens import encoding_offsets, load_tokenizer
from ragschema.errors import CorruptData, InternalError, InvalidInput
from ragschema.types import F32, I32, EmbedPurpose, ModelInfo, Role

#: Weights that no pooling reads; checkpoints often leave them out.
_UNREAD_PREFIXES = ("pooler.",)


def load(reference: str, dtype: EmbedDtype = EmbedDtype.FLOAT32) -> SentenceEncoder:
    """Loads ``minilm`` or a model directory and runs it once.

    Args:
        dtype: of weights and layers. In bfloat16 cosines to float32 are above 0.999, and the
            vectors count as the same model's.

    Raises:
        InvalidInput, CorruptData: naming the file at fault.
    """
    layout = read_sentence_model(reference)
    tokenizer = load_tokenizer(layout.checkpoint.directory / "tokenizer.json")
    model = _load_model(layout).to(getattr(torch, dtype))
    encoder = SentenceEncoder(layout, tokenizer, model)
    encoder.forward(encoder.encode(["warm"], EmbedPurpose.PASSAGE))
    return encoder


def _load_model(layout: SentenceModel) -> torch.nn.Module:
    from transformers.models.auto.modeling_auto import AutoModel

    model, report = load_pretrained(AutoModel, layout.checkpoint, "embedder")
    lost = sorted(k for k in report["missing_keys"] if not k.startswith(_UNREAD_PREFIXES))
    lost += sorted(str(k) for k in report["mismatched_keys"])
    if lost:
        raise CorruptData(
            f"{layout.checkpoint.weights[0]} lacks {lost[0]} ({len(lost)} weights in all)",
            field="embedder",
            hint="the weights do not belong to this config.json",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise InvalidInput(
            f"{layout.checkpoint.directory} is an encoder-decoder model", field="embedder"
        )
    module: torch.nn.Module = model.eval()
    return module


class SentenceEncoder:
    """An Embedder on the CPU; vectors are float32. Methods block and are not re-entrant."""

    def __init__(self, layout: SentenceModel, tokenizer: Tokenizer, model: torch.nn.Module) -> None:
        self._layout = layout
        self._model: Any = model
        config: Any = model.config
        self._plain = tokenizer
        self._cutting = Tokenizer.from_str(tokenizer.to_str())
        self._cutting.enable_truncation(layout.max_tokens)
        self._pad_id = _pad_id(layout, tokenizer)
        self._info = ModelInfo(
            role=Role.EMBED,
            name=layout.name,
            fingerprint=fingerprint(layout.checkpoint, layout.extra_files),
            dim=int(config.hidden_size),
            max_input_tokens=layout.max_tokens,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def encode(self, texts: Sequence[str], purpose: EmbedPurpose) -> list[TokenizedText]:
        """Token ids with special tokens, cut at the model's maximum."""
        prompt = self._layout.prompts.get(purpose, "")
        prepared = [prompt + text for text in texts]
        if self._layout.lower_case:
            prepared = [text.lower() for text in prepared]
        encodings = self._cutting.encode_batch(prepared)
        # A tokenizer without special tokens gives nothing for an empty text.
        return [
            TokenizedText(tuple(x.ids) or (self._pad_id,), bool(x.overflowing)) for x in encodings
        ]

    def forward(self, batch: Sequence[TokenizedText]) -> F32:
        """float32 [len(batch), dim], unit length.

        Raises:
            InternalError: the model produced a vector that is not finite.
        """
        vectors = np.empty((len(batch), self._info.dim or 0), dtype=np.float32)
        for rows in tiles([len(text.ids) for text in batch]):
            vectors[rows] = self._forward_tile([batch[row] for row in rows])
        if not np.isfinite(vectors).all():
            raise InternalError(f"the embedder {self._layout.name} produced NaN or infinity")
        return vectors

    def _forward_tile(self, batch: Sequence[TokenizedText]) -> F32:
        """One pass of the model, padded to the longest text."""
        longest = max(len(text.ids) for text in batch)
        ids = torch.full((len(batch), longest), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, text in enumerate(batch):
            ids[row, : len(text.ids)] = torch.tensor(text.ids, dtype=torch.long)
            mask[row, : len(text.ids)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = self._pool(hidden.float(), mask)
            unit = torch.nn.functional.normalize(pooled, dim=1)
        vectors: F32 = unit.numpy()
        return vectors

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._layout.pooling is Pooling.CLS:
            return hidden[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        """int32 [tokens, 2] per text, in characters of the text as given."""
        encodings = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [encoding_offsets(encoding) for encoding in encodings]


def _pad_id(layout: SentenceModel, tokenizer: Tokenizer) -> int:
    """Masked positions never count, so any id of the vocabulary is right."""
    configured = layout.checkpoint.config.get("pad_token_id")
    if isinstance(configured, int) and 0 <= configured < tokenizer.get_vocab_size():
        return configured
    return 0
