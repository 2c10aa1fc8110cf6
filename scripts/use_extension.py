"""A pytest plugin: tests use the extensions in the folder RAGRIG_NATIVE_FOLDER names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

NAMES = ("retrieval_node.native._scan", "llm_node.native._kernels")


def pytest_configure() -> None:
    """Loads them before any test can import those that are installed."""
    for name in NAMES:
        _use(name, Path(os.environ["RAGRIG_NATIVE_FOLDER"]))


def _use(name: str, folder: Path) -> None:
    assert name not in sys.modules, "the installed extension is loaded already"
    package, _, own = name.rpartition(".")
    file = next(folder.joinpath(*package.split(".")).glob(f"{own}*.so"))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "the file is no extension module"
    assert spec.loader is not None, "the file is no extension module"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    vars(importlib.import_module(package))[own] = module
    print(f"native extension: {module.__file__}")
