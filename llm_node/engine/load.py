"""Loads a decoder-only checkpoint through transformers' model code.

``weights.Weights`` hands transformers views of the mapped files; it renames and
merges them into the module's parameters, which stay views where nothing has to
be converted.

Tensor parallel: ranks would differ here and in ``attention.probe`` alone. Each
rank slices the views by transformers' ``base_model_tp_plan``, the probe then
finds the rank's own number of KV heads, and everything above (blocks, scheduler,
batch) is the same on every rank; see ``docs/engine.md``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm_node.checkpoint import Checkpoint, fingerprint, inspect_checkpoint
from llm_node.engine import attention
from llm_node.engine.config import EngineConfig
from llm_node.engine.experts import odd_expert
from llm_node.engine.kv import KvLayout
from llm_node.engine.linear import use_native
from llm_node.engine.weights import LazyTensor, Weights
from llm_node.libraries import first_line, quiet_transformers
from llm_node.native.loader import native
from ragschema.errors import CorruptData, InvalidInput

_LOG = logging.getLogger(__name__)
_FIELD = "generator"
_HINT = "use a decoder-only model with a KV cache, or a server through openai:URL"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
#: Layers this engine can serve: attention over all or over the last tokens.
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True)
class LoadedModel:
    """A module on its device, and what the engine must know about it.

    Attributes:
        module: maps ids [1, T] to logits, attends through ``attention``.
        context: tokens it was made for, None where there is no limit.
        eos: ids that end a text.
        vocabulary: ids below it have an embedding.
    """

    module: Any
    layout: KvLayout
    context: int | None
    eos: frozenset[int]
    vocabulary: int
    fingerprint: str
    device: torch.device


def load_model(directory: Path, config: EngineConfig) -> LoadedModel:
    """Blocks until the weights are on the device and one pass went through.

    Raises:
        InvalidInput: a file is missing, or the architecture cannot be served.
        CorruptData: a file is not what config.json describes; names the file.
    """
    checkpoint = inspect_checkpoint(directory.expanduser().absolute(), _FIELD)
    device = _device(config.device)
    model_config = _model_config(checkpoint)
    dtype = _dtype(config.dtype, model_config)
    module = _build(checkpoint, model_config, dtype).to(device)
    kernels = native()
    if kernels is not None and device.type == "cpu":
        use_native(module, kernels)
    layers = _probe(module, device)
    text = model_config.get_text_config()
    return LoadedModel(
        module=module,
        layout=KvLayout(layers, dtype),
        context=context_of(text),
        eos=_eos(checkpoint, text),
        vocabulary=int(module.get_input_embeddings().num_embeddings),
        fingerprint=fingerprint(checkpoint),
        device=device,
    )


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            "there is no CUDA device", field="device", hint="use cpu, or check the driver"
        )
    return device


def _model_config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    quiet_transformers()
    try:
        return AutoConfig.from_pretrained(
            str(checkpoint.directory), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a loader may raise anything on a foreign file
        path = checkpoint.directory / "config.json"
        raise InvalidInput(f"cannot load {path}: {first_line(error)}", field=_FIELD) from error


def _dtype(name: str, model_config: Any) -> torch.dtype:
    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    stored = getattr(model_config.get_text_config(), "dtype", None)
    return stored if stored in _FLOATS else torch.float32


def _build(checkpoint: Checkpoint, model_config: Any, dtype: torch.dtype) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(model_config)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InvalidInput(
            f"{checkpoint.directory} holds a {model_config.model_type} model, which does not"
            " generate text",
            field=_FIELD,
            hint=_HINT,
        )
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    weights = Weights(checkpoint.weights)
    tensors = weights.tensors()
    origin = {name: tensor.file.path for name, tensor in tensors.items()}
    _check_index(checkpoint, origin)
    weights.check()
    odd = odd_expert(tensors)
    if odd is not None:
        raise CorruptData(odd, field=_FIELD, hint="copy the checkpoint again")
    attention.register()
    try:
        with _one_after_another():
            module, report = model_class.from_pretrained(
                None,
                config=model_config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=attention.NAME,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # foreign code on a foreign checkpoint
        raise InvalidInput(
            f"cannot load {checkpoint.directory}: {first_line(error)}", field=_FIELD
        ) from error
    weights.forget()
    _check_report(checkpoint, report, origin)
    _check_numbers(module, tensors)
    return module.eval().requires_grad_(False)


@contextlib.contextmanager
def _one_after_another() -> Iterator[None]:
    """transformers reads ahead in threads otherwise, and keeps what it has read."""
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_index(checkpoint: Checkpoint, origin: dict[str, Path]) -> None:
    """Every tensor the index promises lies in the file it names."""
    path = checkpoint.directory / "model.safetensors.index.json"
    if len(checkpoint.weights) == 1 and checkpoint.weights[0].name == "model.safetensors":
        return
    for name, file in json.loads(path.read_text(encoding="utf-8"))["weight_map"].items():
        if name not in origin or origin[name].name != file:
            raise CorruptData(
                f"{checkpoint.directory / file} lacks {name}, which {path.name} places there",
                field=_FIELD,
                hint="copy the checkpoint again",
            )


def _check_report(checkpoint: Checkpoint, report: Any, origin: dict[str, Path]) -> None:
    hint = "the weights do not belong to this config.json"
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        path = origin.get(name, checkpoint.weights[0])
        raise CorruptData(
            f"{path} holds {name} as {list(stored)}, config.json describes {list(wanted)}",
            field=_FIELD,
            hint=hint,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CorruptData(
            f"{checkpoint.weights[0]} lacks {missing[0]} ({len(missing)} weights in all)",
            field=_FIELD,
            hint=hint,
        )
    surplus = sorted(report["unexpected_keys"])
    if surplus:
        _LOG.warning(
            "%s: config.json describes no %s (%d such tensors)",
            checkpoint.directory, surplus[0], len(surplus),
        )  # fmt: skip


def _check_numbers(module: Any, tensors: Mapping[str, LazyTensor]) -> None:
    """transformers makes floats of any numbers; those of a quantised weight mean something else."""
    for name, parameter in module.named_parameters():
        stored = tensors.get(name)
        if stored is None or stored.dtype.is_floating_point:
            continue
        if parameter.is_floating_point():
            raise CorruptData(
                f"{stored.file.path} holds {name} as {stored.dtype}, not as floats",
                field=_FIELD,
                hint="quantised checkpoints are not served; use the original weights",
            )


def _probe(module: Any, device: torch.device) -> Any:
    """One pass over two tokens: finds the KV shapes, and what cannot be served."""
    name = type(module).__name__
    taken = inspect.signature(module.forward).parameters
    lacking = {"logits_to_keep", "position_ids"} - taken.keys()
    if lacking:
        raise InvalidInput(
            f"{name} cannot be decoded here: it takes no {min(lacking)}", field=_FIELD, hint=_HINT
        )
    try:
        layers = attention.probe(module, device)
        attention.check_layers(layers, module.config.get_text_config(), _LAYER_TYPES)
    except Exception as error:  # foreign code, foreign shapes
        raise InvalidInput(
            f"{name} cannot be decoded here: {first_line(error)}", field=_FIELD, hint=_HINT
        ) from error
    return layers


def context_of(text: Any) -> int | None:
    """Some position codes change for the whole batch behind a first length."""
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # Where layers of different types rotate differently, each type has its own.
    each = [scaling, *(one for one in scaling.values() if isinstance(one, dict))]
    lengths = [getattr(text, "max_position_embeddings", None)]
    for one in each:
        if one.get("rope_type") in ("longrope", "dynamic"):
            lengths.append(one.get("original_max_position_embeddings"))
            lengths.append(getattr(text, "original_max_position_embeddings", None))
    context = min((int(length) for length in lengths if length), default=None)
    if context is not None and context < 1:
        raise InvalidInput(f"config.json gives a context of {context} tokens", field=_FIELD)
    return context


def _eos(checkpoint: Checkpoint, text: Any) -> frozenset[int]:
    found = ids_of(getattr(text, "eos_token_id", None))
    path = checkpoint.directory / "generation_config.json"
    if path.is_file():
        with contextlib.suppress(ValueError, AttributeError):
            found += ids_of(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
    return frozenset(found)


def ids_of(value: Any) -> list[int]:
    """An end-of-sequence setting is absent, a number or a list of them; others are no ids."""
    several = value if isinstance(value, list | tuple) else [value]
    return [x for x in several if isinstance(x, int) and not isinstance(x, bool) and x >= 0]
