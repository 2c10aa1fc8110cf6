"""The hardware a plan may use: one YAML file names devices, counts and a calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.hardware.calibration import Calibration, find_calibration
from ragschema.hardware.devices import Accelerator, Device, Fpga, Host, find_device, priced
from ragschema.measured import Measured
from ragschema.userfile import checked_yaml, nearest, read_user_text

_D = TypeVar("_D", bound=Device)

_STRICT = ConfigDict(extra="forbid", strict=True)
_Count = Annotated[int, Field(ge=1, le=65_536)]
_Price = Annotated[float, Field(gt=0, le=1e6)]
_Positive = Annotated[float, Field(gt=0, le=1e15)]


@dataclass(frozen=True)
class DevicesConfig:
    """So many of one device.

    Attributes:
        device: name in the catalogue, or path of a device file.
        price_per_h, watts: instead of the file's.
    """

    __pydantic_config__ = _STRICT
    device: str
    count: _Count
    price_per_h: _Price | None = None
    watts: _Price | None = None


@dataclass(frozen=True)
class NetworkConfig:
    """Between the coordinator and retrieval nodes, and from prefill to decode: LogGP's L + 2o,
    and 1 / G."""

    __pydantic_config__ = _STRICT
    hop_s: _Positive
    bytes_per_s: _Positive


@dataclass(frozen=True)
class PoolConfig:
    """A pool file: either one accelerator whose hosts come with it, or lists of devices.

    Attributes:
        accelerator, host: names in the catalogue, or paths of device files.
        min_accelerators, max_accelerators: of one deployment.
        accelerators: of several kinds.
        retrieval: nodes that may hold the database; a plan takes one kind of them.
        calibration: fitted figures over the datasheets'; None: the datasheets alone.
    """

    __pydantic_config__ = _STRICT
    version: Literal[1]
    accelerator: str | None = None
    host: str | None = None
    max_accelerators: _Count | None = None
    min_accelerators: _Count = 1
    accelerators: list[DevicesConfig] | None = None
    retrieval: list[DevicesConfig] | None = None
    network: NetworkConfig | None = None
    calibration: str | None = None


@dataclass(frozen=True)
class ChipPool:
    """So many accelerators of a kind."""

    device: Accelerator
    count: int


@dataclass(frozen=True)
class NodePool:
    """So many retrieval nodes of a kind."""

    device: Host | Fpga | Accelerator
    count: int


@dataclass(frozen=True)
class Pool:
    """Devices and how many of them one deployment may have.

    Attributes:
        nodes: of retrieval, each kind an alternative to the others; may be empty.
        min_chips, max_chips: of the whole deployment.
        chips_per_node: nodes come with accelerators, one to so many; None: they are free.
        network: to retrieval nodes, and from prefill to decode; None: it takes no time.
        measured: profiles by name of the device that they speak for.
    """

    chips: tuple[ChipPool, ...]
    nodes: tuple[NodePool, ...]
    min_chips: int
    max_chips: int
    chips_per_node: int | None = None
    network: NetworkConfig | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[Device, ...]:
        """All kinds, accelerators first; a device may be there twice."""
        return (*(c.device for c in self.chips), *(n.device for n in self.nodes))

    def changed(self, change: Callable[[Device], Device]) -> Pool:
        """The pool with every device replaced by what ``change`` makes of it."""
        return replace(
            self,
            chips=tuple(ChipPool(_same(change, c.device), c.count) for c in self.chips),
            nodes=tuple(NodePool(_same(change, n.device), n.count) for n in self.nodes),
        )


def with_profiles(pool: Pool, measured: Mapping[str, Measured]) -> Pool:
    """The pool with profiles in place of cost models.

    Raises:
        InvalidInput: the pool has no such device.
    """
    known = sorted({device.name for device in pool.devices})
    for name in measured:
        if name not in known:
            raise InvalidInput(
                f"the pool has no device {name!r}", field="profile", hint=nearest(name, known)
            )
    return replace(pool, measured=dict(measured))


def tied_pool(chip: Accelerator, host: Host, min_chips: int, max_chips: int) -> Pool:
    """One kind of accelerator, whose hosts come with it and hold the database.

    Raises:
        InvalidInput: the host does not say how many accelerators it has.
    """
    if host.chips is None:
        raise InvalidInput(
            f"{host.name!r} does not say how many accelerators it carries",
            field="host",
            hint="give accelerators: and retrieval: lists with a count for each device",
        )
    nodes = NodePool(host, max(1, max_chips // host.chips))
    return Pool((ChipPool(chip, max_chips),), (nodes,), min_chips, max_chips, host.chips)


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
    listed, single = config.accelerators is not None, config.accelerator is not None
    if listed == single:
        raise InvalidInput(
            f"{source}: give either accelerator, host and max_accelerators, or accelerators",
            field="accelerators" if listed else "accelerator",
            hint=hint,
        )
    fitted = find_calibration(config.calibration) if config.calibration is not None else None
    pool = _listed(config, fitted, source) if listed else _single(config, fitted, source)
    if pool.min_chips > pool.max_chips:
        raise InvalidInput(
            f"{source}: {pool.min_chips} is more than {pool.max_chips}",
            field="min_accelerators",
            hint="give at most max_accelerators",
        )
    return pool


def _single(config: PoolConfig, fitted: Calibration | None, source: str) -> Pool:
    for key in ("host", "max_accelerators"):
        if getattr(config, key) is None:
            raise InvalidInput(f"{source}: {key} is missing", field=key, hint="give it")
    for key in ("retrieval", "network"):
        if getattr(config, key) is not None:
            raise InvalidInput(
                f"{source}: {key} goes with a list of accelerators",
                field=key,
                hint="give accelerators: [{device: ..., count: ...}] instead of accelerator",
            )
    assert config.accelerator is not None, "just checked"
    assert config.host is not None, "just checked"
    assert config.max_accelerators is not None, "just checked"
    chip = _accelerator(config.accelerator, "accelerator", source)
    host = find_device(config.host)
    if not isinstance(host, Host):
        raise InvalidInput(f"{source}: {host.name!r} is no host", field="host")
    return tied_pool(
        _fitted(fitted, chip),
        _fitted(fitted, host),
        config.min_accelerators,
        config.max_accelerators,
    )


def _listed(config: PoolConfig, fitted: Calibration | None, source: str) -> Pool:
    if config.host is not None:
        raise InvalidInput(
            f"{source}: a host goes with a single accelerator",
            field="host",
            hint="give retrieval: [{device: ..., count: ...}] instead",
        )
    chips, nodes = [], []
    for at, given in enumerate(config.accelerators or ()):
        chip = _accelerator(given.device, f"accelerators.{at}.device", source)
        chips.append(ChipPool(priced(_fitted(fitted, chip), given), given.count))
    for at, given in enumerate(config.retrieval or ()):
        node = priced(_fitted(fitted, find_device(given.device)), given)
        if isinstance(node, Accelerator) and node.scan_share is None:
            raise InvalidInput(
                f"{source}: {node.name!r} has no figure scan_share, so it scans no codes",
                field=f"retrieval.{at}.device",
                hint="use a host, an FPGA, or an accelerator whose file gives scan_share",
            )
        nodes.append(NodePool(node, given.count))
    if not chips:
        raise InvalidInput(f"{source}: no accelerators", field="accelerators", hint="list one")
    _all_different(source, "accelerators", [c.device.name for c in chips])
    _all_different(source, "retrieval", [n.device.name for n in nodes])
    most = sum(c.count for c in chips)
    return Pool(
        tuple(chips),
        tuple(nodes),
        config.min_accelerators,
        min(most, config.max_accelerators or most),
        network=config.network,
    )


def _fitted(calibration: Calibration | None, device: _D) -> _D:
    return device if calibration is None else calibration.over(device)


def _accelerator(reference: str, field: str, source: str) -> Accelerator:
    device = find_device(reference)
    if not isinstance(device, Accelerator):
        raise InvalidInput(f"{source}: {device.name!r} is no accelerator", field=field)
    return device


def _all_different(source: str, field: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"{source}: {name!r} stands twice", field=field, hint="add its counts up"
            )


def _same(change: Callable[[Device], Device], device: _D) -> _D:
    found = change(device)
    assert type(found) is type(device), "a change keeps the kind"
    return found
