"""The API key: read from a file, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass, field
from pathlib import Path

from ragschema.errors import InvalidInput, NotFound
from ragschema.wire.serving import LOOPBACK_HOSTS

log = logging.getLogger(__name__)

_MAX_KEY_BYTES = 4096
_OTHERS_MAY_READ = 0o044


@dataclass(frozen=True)
class ApiKey:
    """Holds only a digest, so that no dump or log line can show the key."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes) -> ApiKey:
        return cls(hashlib.sha256(key).digest())

    def matches(self, offered: bytes) -> bool:
        """Takes the same time wherever the first difference lies."""
        return hmac.compare_digest(self.digest, hashlib.sha256(offered).digest())


def load_api_key(path: Path) -> ApiKey:
    """Reads a key file; white space around the key is dropped.

    Raises:
        NotFound: there is no such file.
        InvalidInput: empty, too long, or not printable ASCII without spaces.
    """
    try:
        with path.open("rb") as source:
            raw = source.read(_MAX_KEY_BYTES + 1)
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no API key file {path}",
            field="api_key_file",
            hint="write a long random word into it, or leave --api-key-file out on loopback",
        ) from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", field="api_key_file") from error
    key = raw.strip()
    if not key:
        raise InvalidInput(
            f"the API key file {path} is empty",
            field="api_key_file",
            hint="write a long random word into it",
        )
    if len(raw) > _MAX_KEY_BYTES or not all(0x21 <= byte <= 0x7E for byte in key):
        raise InvalidInput(
            f"{path} does not hold one word of printable ASCII of at most {_MAX_KEY_BYTES} bytes",
            field="api_key_file",
            hint="keep one key per file",
        )
    if mode & _OTHERS_MAY_READ:
        log.warning("other users may read the API key file %s; run: chmod 600 %s", path, path)
    return ApiKey.of(key)


def check_listen(host: str, key: ApiKey | None) -> None:
    """Raises InvalidInput for a server that anyone on the network could use."""
    if key is None and host not in LOOPBACK_HOSTS:
        raise InvalidInput(
            f"will not listen on {host} without an API key",
            field="coordinator.host",
            hint="give --api-key-file FILE, or listen on 127.0.0.1",
        )


def offered_key(headers: dict[bytes, bytes]) -> bytes | None:
    """The key a request carries: ``Authorization: Bearer`` or ``x-api-key``."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and credentials.strip():
        return credentials.strip()
    return headers.get(b"x-api-key") or None
