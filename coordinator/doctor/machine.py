"""The machine as the doctor sees it; tests give it another root and another PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MAX_OUTPUT_CHARS = 4000


@dataclass(frozen=True)
class Machine:
    """Files, programs and environment.

    Attributes:
        root: what stands for ``/`` when /proc, /sys and /dev are read.
        env: PATH and the rest; programs are looked for there.
    """

    root: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def read(self, path: str) -> str:
        """A small text file, empty when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Sorted paths below the root, written from ``/``."""
        found = self.root.glob(pattern.lstrip("/"))
        return tuple(sorted(f"/{p.relative_to(self.root).as_posix()}" for p in found))

    def which(self, program: str) -> str | None:
        """Where the program lies on PATH."""
        return shutil.which(program, path=self.env.get("PATH", ""))

    def output_of(self, argv: Sequence[str], timeout_s: float = 10.0) -> str | None:
        """What a program prints; None when it is absent, fails or takes too long."""
        program = self.which(argv[0])
        if program is None:
            return None
        try:
            done = subprocess.run(  # noqa: S603  fixed argument lists
                [program, *argv[1:]],
                env=dict(self.env),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout[:_MAX_OUTPUT_CHARS] if done.returncode == 0 else None
