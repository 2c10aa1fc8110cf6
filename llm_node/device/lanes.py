"""The devices of a node, and the lane of each of its roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from llm_node.device.scheduler import Device, Lane, LaneUsage
from llm_node.libraries import set_torch_threads
from ragschema.errors import InvalidInput
from ragschema.types import Role

_FIELD = "--shares"
_MOST = 1000.0


class NodeDevices:
    """One owner per device of a node's models; devices are made with their first lane.

    Args:
        shares: of a device's time, in proportion; a role that is not named has 1.
        threads: CPU threads of a forward pass.
        max_waiting: jobs of one lane that may wait.
    """

    def __init__(self, shares: Mapping[Role, float], threads: int, max_waiting: int) -> None:
        self._shares = shares
        self._threads = threads
        self._max_waiting = max_waiting
        self._devices: dict[str, Device] = {}

    def lane(self, device: str, *roles: Role) -> Lane:
        """A lane for roles that one model plays; it has the sum of their shares.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        name = "cuda:0" if device == "cuda" else device
        if name not in self._devices:
            self._devices[name] = Device(name, partial(set_torch_threads, self._threads))
        weight = sum(self._shares.get(role, 1.0) for role in roles)
        return self._devices[name].lane("+".join(roles), weight, self._max_waiting)

    def usage(self) -> list[LaneUsage]:
        """Of every lane of every device."""
        return [usage for device in self._devices.values() for usage in device.usage()]

    def start(self) -> None:
        """Starts every device; call it when all lanes are made."""
        for device in self._devices.values():
            device.start()

    async def close(self) -> None:
        """Ends behind the running units."""
        for device in self._devices.values():
            await device.close()


def parse_shares(text: str, roles: Sequence[Role]) -> dict[Role, float]:
    """Shares as they stand on a command line: ``generate=3,embed=1``.

    Raises:
        InvalidInput: naming a role that the node does not have, or a share that is none.
    """
    found: dict[Role, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in roles:
            raise InvalidInput(
                f"{name!r} is no role of this node",
                field=f"{_FIELD}.{name}",
                hint=f"name some of {', '.join(roles)}, or add it to --roles",
            )
        found[Role(name)] = _share(name, value)
    return found


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= _MOST:
        raise InvalidInput(
            f"the share of {name} is {value!r}",
            field=f"{_FIELD}.{name}",
            hint=f"use a number above 0 and up to {_MOST:g}, or leave it out for 1",
        )
    return share
