"""Accelerators and hosts as the cost models see them, read from YAML files.

Every number stands in a file as ``{value: ..., source: ...}`` under a key that ends in
its unit; ``share`` keys are the part of a datasheet figure that is reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.userfile import checked_yaml, nearest


class Quantity(BaseModel):
    """A number and where it is from."""

    model_config = ConfigDict(extra="forbid", strict=True)
    value: Annotated[float, Field(gt=0)]
    source: Annotated[str, Field(min_length=1)]


class _DeviceFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
    kind: Literal["accelerator", "host", "fpga"]
    figures: dict[str, Quantity]


@dataclass(frozen=True)
class Accelerator:
    """A chip that runs models.

    Attributes:
        flops_per_s: at the precision that serving uses.
        compute_share, memory_share: reached by language models.
        encoder_share: of ``flops_per_s`` reached by encoders.
        link_bytes_per_s: to other chips.
        link_latency_s: of one step of a collective between chips.
        scan_share: of the memory bandwidth reached when it scans PQ codes; None: it does not.
        launch_s: fixed time of a search on it.
        price_per_h: currency per hour; None: not known.
        watts: at full load; None: not known.
    """

    name: str
    flops_per_s: float
    memory_bytes: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    compute_share: float = 1.0
    memory_share: float = 1.0
    encoder_share: float = 1.0
    link_latency_s: float = 0.0
    scan_share: float | None = None
    launch_s: float = 0.0
    price_per_h: float | None = None
    watts: float | None = None


@dataclass(frozen=True)
class Host:
    """A server that holds a share of a database.

    Attributes:
        scan_bytes_per_s: PQ codes one core scans.
        core_flops_per_s: one core on matrix products, for coarse search and tables; None: they
            are left out.
        memory_share: of the memory bandwidth that all cores together reach.
        chips: accelerators that come with a host; None: none are tied to it.
    """

    name: str
    cores: int
    memory_bytes: float
    memory_bytes_per_s: float
    scan_bytes_per_s: float
    memory_share: float = 1.0
    core_flops_per_s: float | None = None
    chips: int | None = None
    price_per_h: float | None = None
    watts: float | None = None


@dataclass(frozen=True)
class Fpga:
    """A card that scans PQ codes beside its memory, as ragrig's accelerator does.

    Attributes:
        channels: of memory, each read one beat of ``beat_bytes`` per cycle at best.
        channel_bytes, channel_bytes_per_s: capacity and peak of one.
        memory_share: of the peak that long bursts reach.
        clock_hz: of the scan.
        table_cycles, gap_cycles, settle_cycles: to make tables, between lists, at the end.
    """

    name: str
    channels: int
    channel_bytes: float
    channel_bytes_per_s: float
    clock_hz: float
    beat_bytes: float
    table_cycles: float
    gap_cycles: float
    settle_cycles: float
    memory_share: float = 1.0
    price_per_h: float | None = None
    watts: float | None = None

    @property
    def memory_bytes(self) -> float:
        """Of all channels."""
        return self.channels * self.channel_bytes


Device = Accelerator | Host | Fpga
_D = TypeVar("_D", bound=Device)
_KINDS: Final[Mapping[str, type[Device]]] = {
    "accelerator": Accelerator,
    "host": Host,
    "fpga": Fpga,
}


class Price(Protocol):
    """What may be said of a device's price beside its file."""

    @property
    def price_per_h(self) -> float | None: ...
    @property
    def watts(self) -> float | None: ...


def priced(device: _D, given: Price) -> _D:
    """The device with another price and other watts, where they are given."""
    values: dict[str, Any] = {"price_per_h": given.price_per_h, "watts": given.watts}
    return dataclasses.replace(device, **{k: v for k, v in values.items() if v is not None})


def parse_device(text: str, source: str) -> Device:
    """One device from its YAML text.

    Raises:
        InvalidInput: naming the key, the value and the nearest valid key.
    """
    hint = "see ragschema/hardware/ for files to start from"
    file = checked_yaml(text, source, _DeviceFile, hint)
    return _build(_KINDS[file.kind], file, source)


def _build(kind: type[Device], file: _DeviceFile, source: str) -> Device:
    known = [name for name in kind.__dataclass_fields__ if name != "name"]
    given: dict[str, Any] = {key: figure.value for key, figure in file.figures.items()}
    for key in given:
        if key not in known:
            raise InvalidInput(
                f"{source}: {file.kind} has no figure {key!r}",
                field=f"figures.{key}",
                hint=nearest(key, known),
            )
    for key in ("cores", "chips", "channels"):
        if key in given:
            given[key] = int(given[key])
    for key in given:
        if key.endswith("_share") and given[key] > 1:
            raise InvalidInput(
                f"{source}: {given[key]:g} is more than the whole",
                field=f"figures.{key}.value",
                hint="give a share in (0, 1]",
            )
    try:
        return kind(name=file.name, **given)
    except TypeError as error:
        missing = [n for n, f in kind.__dataclass_fields__.items() if _required(f, n, given)]
        raise InvalidInput(
            f"{source}: {file.kind} {file.name!r} lacks {', '.join(missing)}",
            field="figures",
            hint="every number needs a value and a source",
        ) from error


def _required(field: Any, name: str, given: Mapping[str, Any]) -> bool:
    return name != "name" and name not in given and field.default is dataclasses.MISSING


@cache
def catalogue() -> dict[str, Device]:
    """The devices that ship with ragrig, by name."""
    folder = resources.files("ragschema").joinpath("hardware")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    devices = [parse_device(f.read_text(encoding="utf-8"), f.name) for f in files]
    return {device.name: device for device in devices}


def find_device(reference: str) -> Device:
    """A device by its name in the catalogue, or by the path of a YAML file.

    Raises:
        InvalidInput: there is no such device; names the known ones.
    """
    if reference.endswith((".yaml", ".yml")):
        path = Path(reference)
        try:
            return parse_device(path.read_text(encoding="utf-8"), reference)
        except OSError as error:
            raise InvalidInput(f"cannot read {reference}: {error}", field="device") from error
    known = catalogue()
    if reference not in known:
        raise InvalidInput(
            f"{reference!r} is not a known device",
            field="device",
            hint=f"use a YAML file or one of {', '.join(sorted(known))}",
        )
    return known[reference]
