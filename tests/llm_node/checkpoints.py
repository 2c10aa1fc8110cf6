"""Tiny checkpoints with random weights, saved the way real ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = [
    "The quick brown fox jumps over the lazy dog. User: hello Assistant: hi System: none",
    "Größe, naïve café, emoji 😀 and 漢字 in one line.",
    "def merge(a, b): return sorted(a + b)",
]


def _special(tokenizer: Any, directory: Path, template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")
    if template:
        fast.chat_template = template
    fast.save_pretrained(str(directory))
    return fast


def byte_tokenizer(vocabulary: int = 320) -> Any:
    """A byte-level BPE: characters outside ASCII take several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def save_tiny_llama(directory: Path, context: int = 128, template: str | None = None) -> Path:
    """A two-layer Llama that babbles; the same on every machine."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[1] = 0  # never the best token: greedy decoding goes on
    model.save_pretrained(str(directory))
    _special(tokenizer, directory, template)
    return directory


def save_tiny_bert(directory: Path, positions: int = 32) -> Path:
    """A one-layer BERT with a word tokenizer, a plain encoder directory."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *["the", "a", "cat", "dog", "sat", "ran", "query", "passage", ":", "on"],
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        pad_token_id=0,
        initializer_range=0.5,
    )
    BertModel(config).eval().save_pretrained(str(directory))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(
        str(directory)
    )
    return directory


def save_tiny_cross_encoder(directory: Path, labels: int = 1, positions: int = 32) -> Path:
    """The tiny BERT with a classifier, whose tokenizer writes pairs."""
    import torch
    from tokenizers import processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    save_tiny_bert(directory, positions)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save_pretrained(str(directory))
    torch.manual_seed(5)
    config = BertConfig.from_pretrained(str(directory), num_labels=labels)
    BertForSequenceClassification(config).eval().save_pretrained(str(directory))
    return directory


def add_modules(
    directory: Path,
    pooling: dict[str, Any] | None = None,
    kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    prompts: dict[str, str] | None = None,
    max_seq_length: int = 16,
) -> Path:
    """Turns a plain encoder directory into a sentence-embedding one."""
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": places.get(k, f"{i}_{k}"), "type": f"some.models.{k}"}
        for i, k in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    chosen = pooling if pooling is not None else {"pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(chosen))
    settings = {"max_seq_length": max_seq_length, "do_lower_case": False}
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    if prompts is not None:
        path = directory / "config_sentence_transformers.json"
        path.write_text(json.dumps({"prompts": prompts}))
    return directory
