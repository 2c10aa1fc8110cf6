"""Looks at a model directory before any library opens it.

Only safetensors weights are read: a ``.bin`` or ``.pt`` file is a pickle, and
unpickling runs whatever code its author put there.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragschema.errors import CorruptData, InvalidInput

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MAX_HEADER_BYTES = 100 << 20
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose files are all there and whose weights are whole.

    Attributes:
        config: parsed config.json.
        weights: safetensors files, in the order of their names.
    """

    directory: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]


def inspect_checkpoint(directory: Path, field: str) -> Checkpoint:
    """Checks config.json, tokenizer.json and the safetensors weights.

    Args:
        field: the option that named the directory, for messages.

    Raises:
        InvalidInput: the directory or a file is missing, or there are only
            pickled weights; names the file.
        CorruptData: a file is cut off or is not what it should be; names it.
    """
    if not directory.is_dir():
        raise InvalidInput(
            f"there is no model directory {directory}",
            field=field,
            hint="give the path of a local checkpoint; nothing is downloaded",
        )
    config = read_json(directory / "config.json", field)
    require_file(directory / "tokenizer.json", field, "save the model's fast tokenizer there")
    weights = _weight_files(directory, field)
    for path in weights:
        _check_safetensors(path)
    return Checkpoint(directory, config, weights)


def require_file(path: Path, field: str, hint: str) -> None:
    """Raises InvalidInput naming the file when it is not there."""
    if not path.is_file():
        raise InvalidInput(f"{path} is missing", field=field, hint=hint)


def read_json(path: Path, field: str) -> dict[str, Any]:
    """The JSON object in a file; InvalidInput when missing, CorruptData when not one."""
    require_file(path, field, "the model directory is not complete; copy it again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptData(f"{path} is not JSON: {error}", field=field) from error
    if not isinstance(value, dict):
        raise CorruptData(f"{path} holds a {type(value).__name__}, not an object", field=field)
    return value


def _weight_files(directory: Path, field: str) -> tuple[Path, ...]:
    if (directory / _WEIGHTS).is_file():
        return (directory / _WEIGHTS,)
    if (directory / _INDEX).is_file():
        return _indexed_files(directory, field)
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        raise InvalidInput(
            f"{directory / pickles[0]} is refused: pickled weights can run code when they"
            f" are opened, and there is no {_WEIGHTS}",
            field=field,
            hint="convert the weights to safetensors first",
        )
    raise InvalidInput(
        f"{directory / _WEIGHTS} is missing",
        field=field,
        hint="a checkpoint needs its weights as safetensors",
    )


def _indexed_files(directory: Path, field: str) -> tuple[Path, ...]:
    index = directory / _INDEX
    weight_map = read_json(index, field).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptData(f"{index} has no weight_map", field=field)
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CorruptData(f"{index} names {name!r}, not a safetensors file", field=field)
        require_file(directory / name, field, f"{_INDEX} names it; copy the whole checkpoint")
    return tuple(directory / name for name in names)


def _check_safetensors(path: Path) -> None:
    """The header must parse, and its tensors must end where the file ends."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length} bytes does not fit")
            header = json.loads(file.read(length))
            ends = [
                int(entry["data_offsets"][1])
                for name, entry in header.items()
                if name != "__metadata__"
            ]
    except (OSError, struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CorruptData(
            f"{path} is not a safetensors file: {error}", hint="copy the checkpoint again"
        ) from error
    if not ends or max(ends) + 8 + length != size:
        raise CorruptData(
            f"{path} has {size} bytes, its header describes {max(ends, default=0) + 8 + length}",
            hint="the file is cut off or padded; copy the checkpoint again",
        )


def fingerprint(checkpoint: Checkpoint, extra_files: tuple[Path, ...] = ()) -> str:
    """32 hex characters that identify model and tokenizer.

    Hashes config, tokenizer and ``extra_files`` whole. Of every weight file it
    hashes the size and the first and last MiB, which hold the header and the
    last tensors: reading gigabytes would delay every start, and a checkpoint
    trained further differs there too.
    """
    digest = hashlib.blake2b(digest_size=16)
    names = ("config.json", "tokenizer.json")
    for path in [*(checkpoint.directory / name for name in names), *extra_files]:
        if path.is_file():
            _add(digest, path.name.encode(), path.read_bytes())
    for path in checkpoint.weights:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SAMPLE_BYTES)
            file.seek(max(0, size - _SAMPLE_BYTES))
            _add(digest, path.name.encode(), str(size).encode(), head, file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
