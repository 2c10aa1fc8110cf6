"""The demo's rig: two retrieval nodes with an emulated FPGA, one LLM node."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ragschema.rig import CoordinatorConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig

_LLM_THREADS = 2


def demo_rig(data_dir: Path) -> RigConfig:
    """All ports are free ones, so that a demo never disturbs another rig."""
    threads = min(_LLM_THREADS, len(os.sched_getaffinity(0)))
    return replace(
        RigConfig(name="demo", data_dir=str(data_dir)),
        coordinator=CoordinatorConfig(port=0),
        llm_nodes=(LlmNodeConfig(name="llm-0", threads=threads),),
        retrieval_nodes=tuple(
            RetrievalNodeConfig(name=f"ret-{i}", backend="fpga", device="emulator")
            for i in range(2)
        ),
    )
