"""Cores, memory, SIMD level and huge pages."""

from __future__ import annotations

import os
import re

from coordinator.doctor.machine import Machine
from coordinator.doctor.rows import Level, Row

_MIN_MEMORY_GIB = 3.0
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl"})


def cores(machine: Machine) -> Row:
    """Cores in /proc/cpuinfo and those this process may use."""
    here = machine.read("/proc/cpuinfo").count("processor\t:")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else here
    model = re.search(r"^model name\s*:\s*(.+)$", machine.read("/proc/cpuinfo"), re.MULTILINE)
    name = f", {model.group(1)}" if model else ""
    count = f"{here} ({min(usable, here) or usable} usable)" if here else f"{usable} usable"
    return Row(
        "cores",
        Level.OK if usable >= 2 else Level.OPTIONAL,
        count + name,
        "threads of a node: the sum of `threads` in the rig file should not pass it",
        "" if usable >= 2 else "two or more cores keep the nodes from waiting for each other",
    )


def memory(machine: Machine) -> Row:
    """MemTotal and MemAvailable of /proc/meminfo."""
    text = machine.read("/proc/meminfo")
    total, free = (_gib(text, key) for key in ("MemTotal", "MemAvailable"))
    if total is None or free is None:
        return Row("memory", Level.OPTIONAL, "unknown", "collections are held in memory")
    enough = free >= _MIN_MEMORY_GIB
    return Row(
        "memory",
        Level.OK if enough else Level.PROBLEM,
        f"{total:.1f} GiB, {free:.1f} GiB available",
        "collections are held in memory; the default rig takes about 2 GiB",
        "" if enough else f"free memory: at least {_MIN_MEMORY_GIB:g} GiB for the default rig",
    )


def _gib(meminfo: str, key: str) -> float | None:
    found = re.search(rf"^{key}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found.group(1)) / (1 << 20) if found else None


def simd(machine: Machine) -> Row:
    """The widest vector instructions that every core has."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", machine.read("/proc/cpuinfo"), re.M)
    flags = set(found.group(1).split()) if found else set()
    wide = flags >= _AVX512
    if wide and "avx512vbmi" in flags:
        level, note = "AVX-512 with VBMI", "byte permutes: the fastest PQ scan"
    elif wide:
        level, note = "AVX-512", "64-byte registers for the PQ scan"
    elif "avx2" in flags:
        level, note = "AVX2", "32-byte registers for the PQ scan"
    elif "asimd" in flags:
        level, note = "NEON", "16-byte registers for the PQ scan"
    else:
        level, note = "none known", "the PQ scan runs in plain code"
    return Row("SIMD", Level.OK, level, note)


def huge_pages(machine: Machine) -> Row:
    """Transparent huge pages and reserved ones."""
    setting = re.search(r"\[(\w+)\]", machine.read("/sys/kernel/mm/transparent_hugepage/enabled"))
    reserved = re.search(r"^HugePages_Total:\s+(\d+)$", machine.read("/proc/meminfo"), re.MULTILINE)
    mode = setting.group(1) if setting else "unknown"
    count = reserved.group(1) if reserved else "0"
    good = mode in ("always", "madvise")
    fix = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)"
    return Row(
        "huge pages",
        Level.OK if good else Level.OPTIONAL,
        f"transparent: {mode}, reserved: {count}",
        "fewer page walks when large collections are scanned",
        "" if good else fix,
    )
