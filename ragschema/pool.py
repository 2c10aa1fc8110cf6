"""The hardware a plan may use: one YAML file names devices, counts and a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.hardware.calibration import find_calibration
from ragschema.hardware.devices import Accelerator, Host, find_device
from ragschema.userfile import checked_yaml, read_user_text

_STRICT = ConfigDict(extra="forbid", strict=True)
_Count = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True)
class PoolConfig:
    """A pool file.

    Attributes:
        accelerator, host: names in the catalogue, or paths of device files.
        min_accelerators, max_accelerators: of one deployment.
        calibration: fitted figures over the datasheets'; None: the datasheets alone.
    """

    __pydantic_config__ = _STRICT
    version: Literal[1]
    accelerator: str
    host: str
    max_accelerators: _Count
    min_accelerators: _Count = 1
    calibration: str | None = None


@dataclass(frozen=True)
class Pool:
    """Chips of one kind, and the hosts that come with them.

    Attributes:
        min_chips, max_chips: of the whole deployment.
    """

    chip: Accelerator
    host: Host
    min_chips: int
    max_chips: int


def load_pool(path: Path) -> Pool:
    """Reads a pool file and the devices it names.

    Raises:
        NotFound, InvalidInput: naming the file, the key, the value and the fix.
    """
    text = read_user_text(path, "pool", "see examples/pools/ for files to start from")
    return parse_pool(text, str(path))


def parse_pool(text: str, source: str) -> Pool:
    """Checks a pool's YAML text."""
    hint = "docs/planner.md lists every key of a pool file"
    config = checked_yaml(text, source, PoolConfig, hint)
    if config.min_accelerators > config.max_accelerators:
        raise InvalidInput(
            f"{source}: {config.min_accelerators} is more than {config.max_accelerators}",
            field="min_accelerators",
            hint="give at most max_accelerators",
        )
    chip, host = find_device(config.accelerator), find_device(config.host)
    if not isinstance(chip, Accelerator):
        raise InvalidInput(f"{source}: {chip.name!r} is no accelerator", field="accelerator")
    if not isinstance(host, Host):
        raise InvalidInput(f"{source}: {host.name!r} is no host", field="host")
    if config.calibration is not None:
        calibration = find_calibration(config.calibration)
        chip, host = calibration.over(chip), calibration.over(host)
    return Pool(chip, host, config.min_accelerators, config.max_accelerators)
