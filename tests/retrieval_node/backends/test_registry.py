from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ragschema.errors import InvalidInput
from retrieval_node.backends.registry import BACKENDS, open_backend


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "faiss-gpu"])
def test_every_backend_opens_by_its_name(name: str) -> None:
    backend = open_backend(name)
    assert backend.name == name
    assert backend.device
    backend.close()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'gpu'") as caught:
        open_backend("gpu")
    assert "fpga" in (caught.value.hint or "")
    with pytest.raises(InvalidInput, match="'u250'"):
        open_backend("fpga", device="u250")
    with pytest.raises(InvalidInput, match="'slow'"):
        open_backend("simd", mode="slow")
    with pytest.raises(InvalidInput, match="cpu 99999"):
        open_backend("simd", cpus=(99_999,))
    with pytest.raises(InvalidInput, match="threads"):
        open_backend("simd", threads=0)


def test_without_the_extension_faiss_stands_in() -> None:
    """A process of its own: the answer whether there is one is kept."""
    code = (
        "import logging; logging.basicConfig(level='WARNING');"
        "from retrieval_node.backends.registry import open_backend;"
        "print([open_backend(n).name for n in ('simd', 'fpga')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RAGRIG_NO_NATIVE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout.strip() == "['faiss', 'faiss']"
    assert ran.stderr.count("is replaced by faiss") == 2


@pytest.mark.parametrize("name", ["fpga", "simd"])
def test_the_compiled_backends_do_not_need_faiss(name: str) -> None:
    code = (
        "import sys; from retrieval_node.backends.registry import open_backend;"
        f"open_backend({name!r}).close(); sys.exit('faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
