"""The command ``ragrig``."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command; exits with its code."""
    from coordinator.cli.app import run

    sys.exit(run(sys.argv[1:]))
