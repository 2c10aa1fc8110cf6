"""Cards that the accelerator is designed for, read from the TOML files beside this one.

Every number stands in a file as ``{value = ..., source = "..."}`` under a key that
ends in its unit. Frequencies are targets: no place and route has been run.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Quantity

_FIGURES = TypeAdapter(dict[str, Quantity])


@dataclass(frozen=True)
class Board:
    """One card.

    Attributes:
        channels_count: memory channels that a build reads codes from.
        channel_bytes_per_s: peak of one channel.
        channel_bytes: capacity of one channel.
        reached_share: of the peak that long bursts reach, in (0, 1].
        target_clock_hz: of the core; a target, not a result.
        max_power_w: of the whole card; energies from it are upper bounds.
        luts_count, ffs_count, ramb18_count, dsps_count: of the whole device.
    """

    name: str
    channels_count: int
    channel_bytes_per_s: float
    channel_bytes: float
    reached_share: float
    target_clock_hz: float
    max_power_w: float
    luts_count: int
    ffs_count: int
    ramb18_count: int
    dsps_count: int

    @property
    def peak_bytes_per_s(self) -> float:
        return self.channels_count * self.channel_bytes_per_s

    @property
    def capacity_bytes(self) -> float:
        return self.channels_count * self.channel_bytes


def parse_board(text: str, source: str) -> Board:
    """One board from its TOML text.

    Raises:
        InvalidInput: the text is not TOML, a figure is missing, not known, not
            positive or without a source; names the figure.
    """
    try:
        raw = tomllib.loads(text)
        name = raw.pop("name", source)
        figures = _FIGURES.validate_python(raw)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source}: {error}", field="board") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(
            f"{source}: {problem['input']!r}: {problem['msg']}",
            field=".".join(str(part) for part in problem["loc"]),
            hint='write every figure as {value = ..., source = "..."}',
        ) from error
    return _board(name, {key: figure.value for key, figure in figures.items()}, source)


def _board(name: str, given: dict[str, float], source: str) -> Board:
    known = {f.name for f in fields(Board)} - {"name"}
    for what, keys in (("lacks", known - given.keys()), ("does not know", given.keys() - known)):
        if keys:
            raise InvalidInput(f"{source}: a board {what} {min(keys)!r}", field=min(keys))
    if given["reached_share"] > 1.0:
        raise InvalidInput(
            f"{source}: {given['reached_share']:g} is more than the whole", field="reached_share"
        )
    typed: dict[str, Any] = {
        key: int(value) if key.endswith("_count") else value for key, value in given.items()
    }
    return Board(name=name, **typed)


def board_names() -> tuple[str, ...]:
    """The boards that ship with ragrig."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_board(name: str) -> Board:
    """A board by its name.

    Raises:
        InvalidInput: there is none of that name; lists the known ones.
    """
    if name not in board_names():
        raise InvalidInput(
            f"{name!r} is not a known board",
            field="board",
            hint=f"use one of {', '.join(board_names())}",
        )
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_board(text, f"{name}.toml")
