"""What the rest of the coordinator may know about a node's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NodeKind = Literal["llm", "retrieval"]


@dataclass(frozen=True)
class NodeHealth:
    """One node at its last check.

    Attributes:
        latency_ms: of the last successful check; None before the first.
        error: why the node is not used, or what it could not load.
        instance_id: changes with every start of the node's process.
        detail: loaded shards, running, waiting, models; as the node tells.
    """

    name: str
    kind: NodeKind
    address: str
    ready: bool
    latency_ms: float | None = None
    error: str | None = None
    instance_id: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)
