"""A pytest plugin: tests use the extension in the file RAGRIG_NATIVE_FILE names."""

from __future__ import annotations

import importlib.util
import os
import sys

import retrieval_node.native

NAME = "retrieval_node.native._scan"


def pytest_configure() -> None:
    """Loads it before any test can import the one that is installed."""
    assert NAME not in sys.modules, "the installed extension is loaded already"
    spec = importlib.util.spec_from_file_location(NAME, os.environ["RAGRIG_NATIVE_FILE"])
    assert spec is not None, "the file is no extension module"
    assert spec.loader is not None, "the file is no extension module"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
    vars(retrieval_node.native)["_scan"] = module
    print(f"native extension: {module.__file__}")
