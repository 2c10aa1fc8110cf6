"""Models that transformers loads whole, from local safetensors and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from llm_node.checkpoint import Checkpoint
from llm_node.libraries import first_line, quiet_transformers
from ragschema.errors import InvalidInput


def load_pretrained(
    loader: Any, checkpoint: Checkpoint, field: str
) -> tuple[Any, Mapping[str, Any]]:
    """The model in float32, and what transformers reports of keys missing or mismatched.

    Args:
        loader: one of transformers' ``AutoModel`` classes.
        field: that names the checkpoint, for messages.

    Raises:
        InvalidInput: transformers cannot load it.
    """
    quiet_transformers()
    directory = checkpoint.directory
    try:
        model, report = loader.from_pretrained(
            str(directory),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a loader may raise anything on a foreign file
        raise InvalidInput(f"cannot load {directory}: {first_line(error)}", field=field) from error
    return model, report
