"""Files that users write."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.userfile import checked_yaml, nearest, read_user_text


def test_a_text_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    with pytest.raises(NotFound, match=r"there is no pool file .*pool\.yaml"):
        read_user_text(path, "pool", "make one")
    path.write_text("é", encoding="utf-8")
    assert read_user_text(path, "pool", "make one") == "é"
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="cannot read") as caught:
        read_user_text(path, "pool", "make one")
    assert caught.value.field == "pool"


def test_yaml_is_checked_and_its_mistake_named() -> None:
    assert checked_yaml("a: 1", "x.yaml", dict[str, float], "help") == {"a": 1.0}
    with pytest.raises(InvalidInput, match=r"x\.yaml: 'one'") as caught:
        checked_yaml("a: one", "x.yaml", dict[str, float], "help")
    assert (caught.value.field, caught.value.hint) == ("a", "help")


def test_an_unknown_key_gets_the_nearest_or_all() -> None:
    assert nearest("batchs", ["batch", "chips"]) == "did you mean batch?"
    assert nearest("zzz", ["batch", "chips"]) == "use one of batch, chips"
