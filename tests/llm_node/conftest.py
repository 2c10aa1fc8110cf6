"""Checkpoints shared by the tests of the LLM node."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.embed.encoder import SentenceEncoder
from llm_node.libraries import prepare_environment
from tests.llm_node.checkpoints import add_modules, save_tiny_bert, save_tiny_llama


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    prepare_environment(1)
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def long_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context that no test comes to the end of."""
    return save_tiny_llama(tmp_path_factory.mktemp("long-llama"), context=1 << 16)


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    return add_modules(save_tiny_bert(tmp_path / "tiny-bert"))


@pytest.fixture(scope="session")
def minilm() -> SentenceEncoder:
    from llm_node.embed import encoder

    return encoder.load("minilm")
