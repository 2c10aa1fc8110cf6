from __future__ import annotations

import subprocess
import sys

import pytest

from ragschema.errors import InvalidInput
from retrieval_node.backends.registry import BACKENDS, open_backend


@pytest.mark.parametrize("name", BACKENDS)
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


def test_the_fpga_backend_does_not_need_faiss() -> None:
    code = (
        "import sys; from retrieval_node.backends.registry import open_backend;"
        "open_backend('fpga').close(); sys.exit('faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
