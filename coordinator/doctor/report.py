"""All findings, in the order in which they are shown."""

from __future__ import annotations

from pathlib import Path

from coordinator.doctor import accelerators, cpu, place, software
from coordinator.doctor.machine import Machine
from coordinator.doctor.rows import Level, Row

_CHECKS = (
    cpu.cores,
    cpu.memory,
    cpu.simd,
    cpu.huge_pages,
    accelerators.gpu,
    accelerators.fpga,
    software.compiler,
    software.native_scan,
    software.python,
    software.core_packages,
    software.llm_packages,
    software.weights,
)


def examine(machine: Machine, data_dir: Path, host: str, port: int) -> tuple[Row, ...]:
    """Looks at everything; changes nothing.

    Args:
        data_dir: where the rig's collections would lie.
        host: where its coordinator would listen.
    """
    rows = tuple(check(machine) for check in _CHECKS)
    return (*rows, place.port(host, port, data_dir), place.disk(data_dir))


def problems(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The findings that keep the default rig from running."""
    return tuple(row for row in rows if row.level is Level.PROBLEM)
