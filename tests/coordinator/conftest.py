"""A tiny checkpoint, and a node that answers with it, for tests of real answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm_node.checkpoints import save_tiny_llama
from tests.llm_node.process import node_process


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its context is longer than any test writes."""
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), context=1 << 14)


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Iterator[str]:
    """The address of a node of the role generate."""
    options = ("--roles", "generate", "--generator", f"hf:{llama}")
    with node_process(tmp_path_factory.mktemp("writer"), *options) as address:
        yield address
