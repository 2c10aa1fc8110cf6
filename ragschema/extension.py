"""Compiled extensions, which a machine without a compiler does without."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Final

#: Set to 1 to do without extensions, as on a machine that has no compiler.
WITHOUT: Final = "RAGRIG_NO_NATIVE"


def load_extension(name: str) -> ModuleType | None:
    """A compiled module by its full name, or None where it was not built."""
    if os.environ.get(WITHOUT) == "1":
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
