"""Builds the native scan; everything else is in pyproject.toml.

The extension is optional: without a C++ compiler the package installs without
it, retrieval nodes fall back to faiss and `ragrig doctor` says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, naive_recompile
from setuptools import setup

_NATIVE = Path("retrieval_node/native")
#: No contraction of a * b + c: the numeric contract rounds every step.
_FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-g0"]


def _extension() -> Pybind11Extension:
    # Set by `make native-sanitize`.
    sanitize = os.environ.get("RAGRIG_SANITIZE", "")
    extra = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1", "-O1"] if sanitize else []
    return Pybind11Extension(
        "retrieval_node.native._scan",
        sorted(str(path) for path in _NATIVE.glob("*.cpp")),
        depends=sorted(str(path) for path in _NATIVE.glob("*.hpp")),
        cxx_std=17,
        extra_compile_args=[*_FLAGS, *extra],
        extra_link_args=extra,
        optional=True,
    )


def _stale(obj: str, source: str) -> bool:
    """Headers count for every source: objects of two layouts of a class would crash."""
    return any(naive_recompile(obj, path) for path in (source, *map(str, _NATIVE.glob("*.hpp"))))


with ParallelCompile("RAGRIG_BUILD_JOBS", default=0, needs_recompile=_stale):
    setup(ext_modules=[_extension()], cmdclass={"build_ext": build_ext})
