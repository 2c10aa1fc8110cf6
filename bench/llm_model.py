"""The model and the requests that the engine's benchmarks share."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The shape of Chameleon's Dec-S (arXiv 2310.09949, table 3): 101M parameters.
DEC_S = {
    "vocab_size": 50_000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
#: The shape of Llama-3.2-1B, for a GPU.
ONE_B = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Job:
    """One request: a prompt, and how many tokens to answer."""

    prompt: tuple[int, ...]
    output: int


def jobs(
    count: int,
    seed: int,
    vocabulary: int,
    prompts: tuple[int, int] = (64, 512),
    outputs: tuple[int, int] = (16, 128),
) -> list[Job]:
    """Lengths log-uniform, so long-tailed; tokens uniform."""
    rng = random.Random(seed)

    def length(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    return [
        Job(tuple(rng.randrange(10, vocabulary) for _ in range(length(*prompts))), length(*outputs))
        for _ in range(count)
    ]


def save_model(directory: Path, shape: dict[str, Any], seed: int, dtype: str = "float32") -> None:
    """Writes a Llama-shaped checkpoint with random weights and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(**shape, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(str(directory))
    words = {f"<{i}>": i for i in range(shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer).save_pretrained(str(directory))


def split_words(directory: Path, vocabulary: int) -> None:
    """A tokenizer that knows the words w1, w2 and so on; one token for any word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer).save_pretrained(str(directory))
