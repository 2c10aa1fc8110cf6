"""Where a node runs: processors and NUMA nodes."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from ragschema.errors import InvalidInput

log = logging.getLogger(__name__)

SYS_NODES: Final = Path("/sys/devices/system/node")
_MAX_CPU: Final = 65535
_MPOL_PREFERRED: Final = 1
_SET_MEMPOLICY: Final = {"x86_64": 238, "aarch64": 237}


def parse_cpus(text: str, field: str = "--cpus") -> tuple[int, ...]:
    """Processors of a list such as ``0-3,6``, in its order.

    Raises:
        InvalidInput: no such list, or one that names a processor twice.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise _no_list(text, field)
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high <= _MAX_CPU:
            raise _no_list(text, field)
        found.extend(range(low, high + 1))
    if len(set(found)) != len(found):
        raise InvalidInput(
            f"{text!r} names a processor twice", field=field, hint="name each processor once"
        )
    return tuple(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _no_list(text: str, field: str) -> InvalidInput:
    return InvalidInput(
        f"{text!r} is no list of processors", field=field, hint="write for example 0-3,6"
    )


def check_cpus(cpus: Collection[int], field: str = "--cpus") -> None:
    """Raises InvalidInput when this process may not run on one of them."""
    if not cpus:
        return
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - allowed)
    if missing:
        raise InvalidInput(
            f"this process may not run on processor {missing[0]}",
            field=field,
            hint=f"it may use {format_cpus(allowed)}",
        )


def format_cpus(cpus: Iterable[int]) -> str:
    """The short form: ``0-3,6``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][-1] == cpu - 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def node_cpus(node: int, root: Path = SYS_NODES) -> tuple[int, ...]:
    """Processors of a NUMA node.

    Raises:
        InvalidInput: the machine has no such node, or it has no processors.
    """
    try:
        text = (root / f"node{node}" / "cpulist").read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidInput(
            f"this machine has no NUMA node {node}",
            field="--numa-node",
            hint=f"it has {_nodes(root)}; leave the option out to run anywhere",
        ) from error
    if not text:
        raise InvalidInput(
            f"NUMA node {node} has no processors",
            field="--numa-node",
            hint="name a node that has some",
        )
    return parse_cpus(text, "--numa-node")


def _nodes(root: Path) -> str:
    numbers = [p.name.removeprefix("node") for p in root.glob("node*")]
    return ", ".join(sorted(n for n in numbers if n.isdigit())) or "none that the system shows"


def stay_on_node(node: int, root: Path = SYS_NODES) -> tuple[int, ...]:
    """Keeps this process, and all threads it starts later, on a NUMA node.

    Memory is preferred there too; where the system refuses that, a warning is
    logged and first touch has to do. Gives the processors that are left.

    Raises:
        InvalidInput: no such node, or none of its processors may be used.
    """
    cpus = set(node_cpus(node, root)) & os.sched_getaffinity(0)
    if not cpus:
        raise InvalidInput(
            f"this process may not run on any processor of NUMA node {node}",
            field="--numa-node",
            hint="widen the affinity it is started with",
        )
    os.sched_setaffinity(0, cpus)
    if not _prefer_memory_of(node):
        log.warning("the system does not let this process prefer the memory of node %d", node)
    return tuple(sorted(cpus))


def _prefer_memory_of(node: int) -> bool:
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        return False
    mask = (ctypes.c_ulong * 16)()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask[node // bits] = 1 << node % bits
    libc = ctypes.CDLL(None, use_errno=True)
    # The kernel takes one bit less than it is told.
    given = ctypes.c_ulong(bits * len(mask) + 1)
    return bool(libc.syscall(number, _MPOL_PREFERRED, mask, given) == 0)
