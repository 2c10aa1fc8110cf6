"""Which rig is measured, and at which points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from coordinator.profile.collection import Vectors
from coordinator.profile.measure import QUICK, THOROUGH, Effort
from ragschema.here import usable_cores
from ragschema.rig import (
    CoordinatorConfig,
    LlmNodeConfig,
    RecallSamplingConfig,
    RetrievalNodeConfig,
    RigConfig,
)

ROLES: Final = (
    "embed",
    "index_scan",
    "pq_scan",
    "retrieval_call",
    "generate",
    "prefill",
    "decode",
    "mixed",
    "crowded",
    "kv_transfer",
    "rerank",
    "coordinator",
)
#: Roles that are not measured by themselves.
_NO_PROBE: Final = {
    "rewrite": "it is prefill and decode of the generator that rewrites",
}
_N = TypeVar("_N", LlmNodeConfig, RetrievalNodeConfig)
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Grid:
    """Points by role; pairs begin with a batch.

    Attributes:
        embed: texts and their tokens.
        index_lists: lists of an index whose centroids are compared.
        index_batches: queries of one search for lists.
        scan: queries and probed lists.
        passages: that the extractive generator reads, and the words of each.
        rerank: passages that are scored in one call, and tokens of each with its question.
        prefill: prompts read at once, and their tokens.
        decode: sequences that write at once, and the tokens before them.
        decode_tokens: written by each sequence.
        mixed: sequences that write while a prompt is read, and its pieces.
        kv_tokens: of prompts whose KV is pulled.
        hits: rows that a REST search asks for.
    """

    embed: Pairs
    index_lists: tuple[int, ...]
    index_batches: tuple[int, ...]
    scan: Pairs
    passages: Pairs
    rerank: Pairs
    prefill: Pairs
    decode: Pairs
    decode_tokens: int
    mixed: Pairs
    kv_tokens: tuple[int, ...]
    hits: tuple[int, ...]


QUICK_GRID: Final = Grid(
    embed=((1, 16), (1, 64), (1, 200), (4, 16), (4, 64), (16, 16), (16, 64)),
    index_lists=(128, 512, 1024, 2048, 4096),
    index_batches=(1, 8, 64),
    scan=((1, 1), (1, 8), (1, 64), (8, 8), (8, 32), (32, 8), (64, 32)),
    passages=((1, 60), (1, 150), (3, 60), (3, 150), (8, 100)),
    rerank=((1, 32), (1, 128), (4, 64), (16, 32), (16, 128)),
    prefill=((1, 32), (1, 128), (1, 384), (2, 64), (4, 32), (4, 128)),
    decode=((1, 32), (1, 256), (2, 64), (4, 32), (4, 256), (8, 64)),
    decode_tokens=12,
    mixed=((1, 2), (1, 6), (4, 2), (4, 6), (7, 4)),
    kv_tokens=(32, 64, 128, 256, 384),
    hits=(1, 5, 20, 50, 100),
)
FULL_GRID: Final = Grid(
    embed=tuple((b, n) for b in (1, 2, 4, 8, 16, 32) for n in (8, 32, 64, 128, 240)),
    index_lists=(128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    index_batches=(1, 2, 4, 8, 32, 64, 128),
    scan=tuple((b, n) for b in (1, 2, 8, 32, 64, 128) for n in (1, 4, 16, 64, 128)),
    passages=tuple((n, words) for n in (1, 3, 5, 10) for words in (40, 100, 180)),
    rerank=tuple((n, tokens) for n in (1, 4, 16, 50) for tokens in (32, 128, 256)),
    prefill=(*((b, n) for b in (1, 2, 4, 8) for n in (32, 128, 256, 512)), (1, 1024)),
    decode=tuple((b, n) for b in (1, 2, 4, 8, 16) for n in (32, 128, 512)),
    decode_tokens=32,
    mixed=tuple((b, n) for b in (1, 2, 4, 8, 16) for n in (2, 5, 10)),
    kv_tokens=(32, 128, 256, 512, 1024),
    hits=(1, 5, 10, 50, 100),
)


@dataclass(frozen=True)
class Scope:
    """One measurement.

    Attributes:
        roles: to measure, of ROLES.
        retrieval_nodes: that are started; all hold the same vectors.
        twins: further nodes, by name of the one whose like they are.
    """

    roles: frozenset[str]
    vectors: Vectors
    grid: Grid
    effort: Effort
    llm_nodes: tuple[LlmNodeConfig, ...]
    retrieval_nodes: tuple[RetrievalNodeConfig, ...]
    twins: Mapping[str, LlmNodeConfig] = field(default_factory=dict)

    @property
    def scans_indexes(self) -> bool:
        """Whether a node finds the nearest lists of queries."""
        return any("index_scan" in node.roles for node in self.llm_nodes)

    def rig(self, data_dir: Path) -> RigConfig:
        """The rig to start: replicas of one shard, nothing that works in the background."""
        quiet = CoordinatorConfig(port=0, recall_sampling=RecallSamplingConfig(share=0.0))
        return RigConfig(
            name="profile",
            data_dir=str(data_dir),
            replicas=len(self.retrieval_nodes),
            coordinator=quiet,
            llm_nodes=(*self.llm_nodes, *self.twins.values()),
            retrieval_nodes=self.retrieval_nodes,
        )


def scope_of(
    rig: RigConfig | None,
    roles: Iterable[str],
    quick: bool,
    vectors: Vectors,
    threads: Sequence[int] = (),
) -> Scope:
    """What is measured of a rig; of none given, every backend that needs no further device.

    Nodes that differ in nothing that time depends on are measured once.

    Args:
        threads: that each node is measured with, one after the other; empty: its own.
    """
    found = rig or RigConfig(retrieval_nodes=_every_backend())
    wanted = frozenset(roles)
    llm_nodes = _threaded([_disaggregated(n) for n in _distinct(found.llm_nodes)], threads)
    return Scope(
        wanted,
        vectors,
        QUICK_GRID if quick else FULL_GRID,
        QUICK if quick else THOROUGH,
        llm_nodes,
        _threaded(_distinct(found.retrieval_nodes), threads),
        _twins(llm_nodes) if "crowded" in wanted else {},
    )


def not_here(scope: Scope) -> dict[str, str]:
    """Roles that this rig does not have, and why."""
    missing = dict(_NO_PROBE)
    if not any(local_model(node) for node in scope.llm_nodes):
        why = "needs a node with an hf: generator"
        missing |= dict.fromkeys(("prefill", "decode", "mixed", "crowded", "kv_transfer"), why)
    elif not scope.twins:
        missing["crowded"] = "needs cores for two of a node with an hf: generator"
    if not any("rerank" in node.roles for node in scope.llm_nodes):
        missing["rerank"] = "no node of this rig reranks"
    if not any("generate" in node.roles for node in scope.llm_nodes):
        missing["generate"] = "no node generates by itself"
    return {role: why for role, why in missing.items() if role in scope.roles or role in _NO_PROBE}


def local_model(node: LlmNodeConfig) -> bool:
    """Whether the node runs a language model of its own."""
    return node.generator.startswith("hf:")


def _twins(nodes: Sequence[LlmNodeConfig]) -> dict[str, LlmNodeConfig]:
    """Of models of our own, where there are cores for two."""
    return {
        node.name: replace(node, name=f"{node.name[:27]}-twin")
        for node in nodes
        if local_model(node) and 2 * node.threads <= usable_cores()
    }


def _every_backend() -> tuple[RetrievalNodeConfig, ...]:
    kinds = (
        RetrievalNodeConfig("simd", backend="simd"),
        RetrievalNodeConfig("contract", backend="simd", mode="contract16"),
        RetrievalNodeConfig("faiss", backend="faiss"),
        RetrievalNodeConfig("fpga", backend="fpga"),
    )
    return tuple(replace(node, threads=1) for node in kinds)


def _disaggregated(node: LlmNodeConfig) -> LlmNodeConfig:
    """With all roles that its model allows, so that each can be asked for by itself."""
    roles = {*node.roles, "embed"}
    if local_model(node):
        roles |= {"generate", "prefill", "decode"}
    if node.reranker is not None:
        roles.add("rerank")
    known = ("embed", "generate", "prefill", "decode", "rerank", "index_scan")
    threads = min(node.threads, usable_cores())
    return replace(node, roles=tuple(r for r in known if r in roles), threads=threads, port=0)


def _threaded(nodes: Sequence[_N], threads: Sequence[int]) -> tuple[_N, ...]:
    """Each with each number of threads; names stay unique and short enough."""
    if not threads:
        return tuple(nodes)
    several = [
        replace(node, name=f"{node.name[:24]}-{at}t{count}", threads=count)
        for at, node in enumerate(nodes)
        for count in threads
    ]
    return _distinct(several)


def _distinct(nodes: Sequence[_N]) -> tuple[_N, ...]:
    """Nodes to start here, without those that only repeat another one."""
    found: dict[_N, _N] = {}
    for node in nodes:
        if node.address is None:
            bare = replace(node, name="x", port=0, host="127.0.0.1")
            found.setdefault(bare, replace(node, port=0, host="127.0.0.1"))
    return tuple(found.values())
