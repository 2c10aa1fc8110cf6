"""Tiny random checkpoints of every family the engine is verified with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 320

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
}

#: Family: its classes' prefix, and what differs from the common sizes.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "mistral": ("Mistral", {"sliding_window": 11}),
    "qwen2": ("Qwen2", {}),
    "qwen2-windowed": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "phi3": ("Phi3", {"sliding_window": 21}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 13, "query_pre_attn_scalar": 8}),
    "mixtral": (
        "Mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "qwen3-moe": (
        "Qwen3Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8},
    ),
}


def save_family(directory: Path, family: str, **changes: Any) -> Path:
    """Saves a model of a family, or of ``prefix``; the same weights on every machine."""
    import torch
    import transformers

    own_prefix, own = FAMILIES[family]
    prefix = changes.pop("prefix", own_prefix)
    config = getattr(transformers, f"{prefix}Config")(**{**_SIZES, **own, **changes})
    torch.manual_seed(11)
    model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.add_(torch.rand_like(parameter))
        if not config.tie_word_embeddings:
            model.get_output_embeddings().weight[1] = 0  # greedy decoding goes on
    model.save_pretrained(str(directory))
    (directory / "tokenizer.json").write_text("{}")
    return directory
