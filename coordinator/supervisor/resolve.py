"""The rig as it runs: absolute paths, an address for every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from coordinator.supervisor.rundir import write_atomically
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

_HF, _PYNQ = "hf:", "pynq:"


def anchor_paths(rig: RigConfig, base: Path) -> RigConfig:
    """Makes the key file, model folders and bitstreams absolute; they are relative to the rig
    file."""
    key_file = rig.coordinator.api_key_file
    coordinator = replace(
        rig.coordinator, api_key_file=None if key_file is None else _absolute(key_file, base)
    )
    nodes = tuple(_anchored(node, base) for node in rig.llm_nodes)
    scanning = tuple(_with_bitstream(node, base) for node in rig.retrieval_nodes)
    return replace(rig, coordinator=coordinator, llm_nodes=nodes, retrieval_nodes=scanning)


def _with_bitstream(node: RetrievalNodeConfig, base: Path) -> RetrievalNodeConfig:
    if not node.device.startswith(_PYNQ):
        return node
    return replace(node, device=_PYNQ + _absolute(node.device.removeprefix(_PYNQ), base))


def _anchored(node: LlmNodeConfig, base: Path) -> LlmNodeConfig:
    embedder, generator = node.embedder, node.generator
    if embedder != "minilm":
        embedder = _absolute(embedder, base)
    if generator.startswith(_HF):
        generator = _HF + _absolute(generator.removeprefix(_HF), base)
    reranker = None if node.reranker is None else _absolute(node.reranker, base)
    template = None if node.rewrite_template is None else _absolute(node.rewrite_template, base)
    return replace(
        node,
        embedder=embedder,
        generator=generator,
        reranker=reranker,
        rewrite_template=template,
    )


def _absolute(path: str, base: Path) -> str:
    return str((base / Path(path).expanduser()).resolve())


def with_addresses(rig: RigConfig, addresses: Mapping[str, str], port: int) -> RigConfig:
    """Fills in where every node listens and the coordinator's port."""
    return replace(
        rig,
        coordinator=replace(rig.coordinator, port=port),
        llm_nodes=tuple(replace(n, address=addresses[n.name]) for n in rig.llm_nodes),
        retrieval_nodes=tuple(replace(n, address=addresses[n.name]) for n in rig.retrieval_nodes),
    )


class _PlainDumper(yaml.SafeDumper):
    """Writes shared values out in full: rig files have no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_rig(path: Path, rig: RigConfig) -> None:
    """Writes a rig file that ``load_rig`` reads back equal."""
    write_atomically(path, yaml.dump(asdict(rig), Dumper=_PlainDumper, sort_keys=False))


def port_of(address: str) -> int:
    """The port of ``host:port``."""
    return int(address.rpartition(":")[2])
