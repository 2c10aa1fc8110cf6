from __future__ import annotations

import random
from pathlib import Path

import pytest

from coordinator.datastore.windows import calls_of, cut, windows_of


@pytest.mark.parametrize("seed", range(20))
def test_a_text_is_cut_between_words_and_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    words = ["x" * rng.randint(1, 12) for _ in range(rng.randint(0, 60))]
    text, limit = " ".join(words), rng.randint(1, 40)
    pieces = list(cut(text, limit))
    assert "".join(pieces) == text, f"seed {seed}"
    assert all(0 < len(piece) <= limit for piece in pieces)
    if limit > 13:
        assert all(piece.startswith(" ") for piece in pieces[1:])


async def test_windows_of_a_folder_share_calls_and_odd_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha beta " * 1000)
    (tmp_path / "b.md").write_text("# Heading\n\ngamma")
    (tmp_path / "broken.html").write_bytes(b"")
    notes: list[str] = []
    seen: list[tuple[str, int, int]] = []
    windows = windows_of(
        [tmp_path, tmp_path / "gone.txt"], 1000, notes, lambda *told: seen.append(told)
    )
    calls = [call async for call in calls_of(windows)]
    texts = [window.text for call in calls for window in call]
    assert "".join(texts[:11]).startswith("alpha beta")
    assert any("gamma" in text for text in texts)
    assert len(calls) > 1
    assert all(sum(len(w.text.encode()) for w in call) <= 7000 for call in calls)
    assert any("gone.txt" in note for note in notes)
    assert seen[-1][1] == seen[-1][2]
