"""The compiled extension, where there is one."""

from __future__ import annotations

import functools
from types import ModuleType

from ragschema.errors import Unavailable
from ragschema.extension import WITHOUT as WITHOUT
from ragschema.extension import load_extension


@functools.cache
def native() -> ModuleType | None:
    """``retrieval_node.native._scan``, or None where it was not built.

    The answer is that of the first call, for the life of the process.
    """
    return load_extension("retrieval_node.native._scan")


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
