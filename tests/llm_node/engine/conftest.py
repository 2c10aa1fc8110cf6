"""One tiny model that the engine's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.engine.config import EngineConfig
from llm_node.engine.load import LoadedModel, load_model
from tests.llm_node.engine.families import save_family


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def llama(llama_dir: Path) -> LoadedModel:
    return load_model(llama_dir, EngineConfig())
