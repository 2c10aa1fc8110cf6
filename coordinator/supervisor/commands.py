"""Command lines of the processes of a rig."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.supervisor.rundir import RunDir
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, "serve")


@dataclass(frozen=True)
class Programs:
    """How each kind of node is started; the options of ``serve`` follow."""

    llm: tuple[str, ...] = field(default_factory=lambda: _module("llm_node"))
    retrieval: tuple[str, ...] = field(default_factory=lambda: _module("retrieval_node"))
    coordinator: tuple[str, ...] = field(default_factory=lambda: _module("coordinator"))


def _common(ready_file: Path) -> tuple[str, ...]:
    return ("--ready-file", str(ready_file), "--parent-pid", str(os.getpid()))


def llm_command(programs: Programs, node: LlmNodeConfig, port: int, run: RunDir) -> tuple[str, ...]:
    """``python -m llm_node serve ...`` for one node of the rig."""
    data = ("--data", str(run.data_dir)) if "index_scan" in node.roles else ()
    key = ("--api-key-env", node.api_key_env) if node.api_key_env else ()
    return (
        *programs.llm,
        *("--name", node.name, "--host", node.host, "--port", str(port)),
        *("--roles", ",".join(node.roles)),
        *("--embedder", node.embedder, "--embedder-dtype", node.embedder_dtype),
        *("--generator", node.generator),
        *(() if node.reranker is None else ("--reranker", node.reranker)),
        *_rewriting(node),
        *data,
        *key,
        *("--threads", str(node.threads)),
        *_shares(node),
        *(() if node.kv_mib is None else ("--kv-mib", str(node.kv_mib))),
        *_engine(node),
        *("--max-running", str(node.max_running), "--max-waiting", str(node.max_waiting)),
        *_common(run.ready_file(node.name)),
    )


def _rewriting(node: LlmNodeConfig) -> tuple[str, ...]:
    if "rewrite" not in node.roles:
        return ()
    template = ("--rewrite-template", node.rewrite_template) if node.rewrite_template else ()
    return ("--rewrite-tokens", str(node.rewrite_tokens), *template)


def _shares(node: LlmNodeConfig) -> tuple[str, ...]:
    given = node.shares.given()
    return ("--shares", ",".join(f"{role}={share:g}" for role, share in given.items())) * bool(
        given
    )


def _engine(node: LlmNodeConfig) -> tuple[str, ...]:
    given = node.engine.given()
    return ("--engine", ",".join(f"{name}={value}" for name, value in given.items())) * bool(given)


def retrieval_command(
    programs: Programs, node: RetrievalNodeConfig, data_dir: str, port: int, ready_file: Path
) -> tuple[str, ...]:
    """``python -m retrieval_node serve ...`` for one node of the rig."""
    coalesce = node.coalesce
    return (
        *programs.retrieval,
        *("--name", node.name, "--host", node.host, "--port", str(port)),
        *("--data", data_dir, "--backend", node.backend, "--device", node.device),
        *(() if node.mode is None else ("--mode", node.mode)),
        *(() if node.tables is None else ("--tables", node.tables)),
        *("--threads", str(node.threads), "--max-waiting", str(node.max_waiting)),
        *(("--cpus", ",".join(map(str, node.cpus))) if node.cpus else ()),
        *(() if node.numa_node is None else ("--numa-node", str(node.numa_node))),
        *("--memory", node.memory),
        *("--coalesce-max-batch", str(coalesce.max_batch)),
        *("--coalesce-max-wait-us", str(coalesce.max_wait_us)),
        *_common(ready_file),
    )


def coordinator_command(
    programs: Programs, rig: RigConfig, run: RunDir, replan: bool = False
) -> tuple[str, ...]:
    """``python -m coordinator serve ...``; it reads the resolved rig file.

    Args:
        replan: live, as the run directory's settings say.
    """
    key_file = rig.coordinator.api_key_file
    return (
        *programs.coordinator,
        *("--rig", str(run.resolved_rig)),
        *(("--api-key-file", key_file) if key_file else ()),
        *(("--replan", str(run.replan_file)) if replan else ()),
        *_common(run.ready_file(COORDINATOR)),
    )


COORDINATOR = "coordinator"
