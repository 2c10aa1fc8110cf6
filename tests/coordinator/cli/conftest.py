"""Commands run as if from an empty folder of a user who set nothing."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _plain_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("RAGRIG_URL", "RAGRIG_API_KEY_FILE", "RAGRIG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
