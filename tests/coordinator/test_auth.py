"""The API key: what a key file may hold, and that nothing shows the key."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from coordinator.auth import ApiKey, check_listen, load_api_key, offered_key
from ragschema.errors import InvalidInput, NotFound

KEY = b"correct-horse-battery-staple"


def written(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_key_is_read_without_white_space_around_it(tmp_path: Path) -> None:
    key = load_api_key(written(tmp_path, b"  " + KEY + b"\n"))
    assert key.matches(KEY)
    assert not key.matches(KEY + b"x")
    assert not key.matches(b"")


@pytest.mark.parametrize(
    "content",
    [b"", b" \n\t", b"two words", b"caf\xc3\xa9", b"a\x00b", b"k" * 5000],
    ids=["empty", "blank", "spaces", "not-ascii", "control", "long"],
)
def test_useless_key_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_api_key(written(tmp_path, content))
    assert caught.value.field == "api_key_file"


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        load_api_key(tmp_path / "nowhere")


def test_key_file_that_others_may_read_is_warned_about_without_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_api_key(written(tmp_path, KEY, mode=0o644))
    assert "chmod 600" in caplog.text
    assert KEY.decode() not in caplog.text


def test_no_representation_shows_the_key() -> None:
    key = ApiKey.of(KEY)
    assert KEY.decode() not in repr(key)
    assert "digest" not in repr(key)
    assert KEY not in key.digest


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    check_listen(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_listen(host, None)
    assert "--api-key-file" in str(caught.value)
    check_listen(host, ApiKey.of(KEY))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"authorization": b"Bearer abc"}, b"abc"),
        ({b"authorization": b"bearer  abc "}, b"abc"),
        ({b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Basic abc"}, None),
        ({b"authorization": b"Basic abc", b"x-api-key": b"def"}, b"def"),
        ({b"authorization": b"Bearer"}, None),
        ({b"x-api-key": b""}, None),
        ({}, None),
    ],
)
def test_where_a_request_carries_its_key(
    headers: dict[bytes, bytes], expected: bytes | None
) -> None:
    assert offered_key(headers) == expected
