"""The package installs with and without a C++ compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_compiler_the_wheel_builds_without_the_extension(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.so", "tests", ".*_cache"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(tmp_path), str(source)],
        env={**os.environ, "CC": "/bin/false", "CXX": "/bin/false"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("ragrig-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "retrieval_node/native/loader.py" in names
    assert not [name for name in names if name.endswith(".so")]
