"""Builds the native scan and the LLM's kernels; everything else is in pyproject.toml.

The extensions are optional: without a C++ compiler the package installs without
them, retrieval nodes fall back to faiss, LLM nodes to torch alone, and
`ragrig doctor` says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, naive_recompile
from setuptools import setup

#: Extension module: how products and sums may be put together. The scan's numeric
#: contract rounds every step; attention and linear layers only have to be near.
_MODULES = {
    "retrieval_node.native._scan": "off",
    "llm_node.native._kernels": "fast",
}
_FLAGS = ["-O3", "-fno-math-errno", "-Wall", "-Wextra", "-g0"]


def _folder(name: str) -> Path:
    return Path(*name.split(".")[:-1])


def _extension(name: str, contract: str) -> Pybind11Extension:
    # Set by `make native-sanitize`.
    sanitize = os.environ.get("RAGRIG_SANITIZE", "")
    extra = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1", "-O1"] if sanitize else []
    return Pybind11Extension(
        name,
        sorted(str(path) for path in _folder(name).glob("*.cpp")),
        depends=sorted(str(path) for path in _folder(name).glob("*.hpp")),
        cxx_std=17,
        extra_compile_args=[*_FLAGS, f"-ffp-contract={contract}", *extra],
        extra_link_args=extra,
        optional=True,
    )


def _stale(obj: str, source: str) -> bool:
    """Headers count for every source: objects of two layouts of a class would crash."""
    headers = map(str, Path(source).parent.glob("*.hpp"))
    return any(naive_recompile(obj, path) for path in (source, *headers))


with ParallelCompile("RAGRIG_BUILD_JOBS", default=0, needs_recompile=_stale):
    setup(
        ext_modules=[_extension(*module) for module in _MODULES.items()],
        cmdclass={"build_ext": build_ext},
    )
