"""Compiling with numba where no place for its cache may exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles on first call, without the GIL; the result is kept on disk if it can be.

    No fastmath and no parallel loops: results must not depend on the compiler.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        # numba found no writable cache folder: compile anew in every process.
        return cast(Function, numba.njit(nogil=True)(function))
