"""The compiled extension, where there is one."""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

from ragschema.errors import Unavailable

#: Set to 1 to do without the extension, as on a machine that has no compiler.
WITHOUT = "RAGRIG_NO_NATIVE"


@functools.cache
def native() -> ModuleType | None:
    """``retrieval_node.native._scan``, or None where it was not built.

    The answer is that of the first call, for the life of the process.
    """
    if os.environ.get(WITHOUT) == "1":
        return None
    try:
        return importlib.import_module("retrieval_node.native._scan")
    except ModuleNotFoundError:
        return None


def require_native() -> ModuleType:
    """As ``native``, for code that cannot do without.

    Raises:
        Unavailable: the extension was not built, or was left out on purpose.
    """
    module = native()
    if module is None:
        raise Unavailable(
            "the compiled scan is not there",
            hint=f"install a C++ compiler and ragrig again, and leave {WITHOUT} unset",
        )
    return module
