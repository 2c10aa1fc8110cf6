"""One tiny model that the engine's tests share, and how Triton's kernels run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.load import LoadedModel, load_model
from tests.llm_node.engine.families import save_family

# Triton reads it when it is first imported, so no fixture could set it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def llama(llama_dir: Path) -> LoadedModel:
    return load_model(llama_dir, EngineConfig())
