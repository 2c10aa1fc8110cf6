"""What a network adds to a request that many nodes answer together.

Sources: LogGP (Alexandrov et al., SPAA'95) for the messages; the latency of a query that
all of n nodes serve is the largest of theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ragschema.errors import InvalidInput


@dataclass(frozen=True)
class Network:
    """Parameters of LogGP; the overheads of sender and receiver count into a hop.

    Attributes:
        hop_s: L + 2o, seconds until the first byte of a message has arrived.
        bytes_per_s: 1 / G, of a long message.
    """

    hop_s: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        for name in ("hop_s", "bytes_per_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InvalidInput(f"{value} is not positive", field=f"network.{name}")


def message_s(network: Network, nbytes: float) -> float:
    """Seconds of one message from end to end."""
    return network.hop_s + nbytes / network.bytes_per_s


def fan_out_s(network: Network, nodes: int, nbytes: float) -> float:
    """Seconds until the last of n nodes has a message, and its answer is back.

    A binomial tree; long messages flow through it in pieces, so that their bytes count
    once and not per level.

    Args:
        nbytes: of a request and its answer together.
    """
    levels = math.ceil(math.log2(nodes))
    return levels * network.hop_s + nbytes / network.bytes_per_s


@dataclass(frozen=True)
class Latencies:
    """How a node's latency is distributed, by quantiles; straight lines between them.

    Attributes:
        shares: of requests, ascending from 0 to 1.
        seconds: within which each share is answered.
    """

    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.seconds) or len(self.shares) < 2:
            raise InvalidInput(
                f"{len(self.shares)} shares and {len(self.seconds)} latencies",
                field="latency",
                hint="give one latency per share, at least two",
            )
        rising = list(self.shares) == sorted(set(self.shares))
        if not rising or self.shares[0] != 0.0 or self.shares[-1] != 1.0:
            raise InvalidInput(
                f"shares {list(self.shares)} do not rise from 0 to 1",
                field="latency.shares",
                hint="give the lowest and the highest latency too",
            )
        if list(self.seconds) != sorted(self.seconds) or self.seconds[0] <= 0:
            raise InvalidInput(
                f"latencies {list(self.seconds)} are not positive and rising",
                field="latency.seconds",
            )

    def at(self, share: float) -> float:
        """Seconds within which this share of requests is answered."""
        return float(np.interp(share, self.shares, self.seconds))

    def slowest_of(self, nodes: int, share: float = 0.5) -> float:
        """The quantile of the slowest of n nodes that are independent of each other.

        All n are below x with probability F(x) ** n.
        """
        return self.at(share ** (1.0 / nodes))


def shared_query_s(
    network: Network, latencies: Latencies, nodes: int, nbytes: float, share: float = 0.5
) -> float:
    """Seconds of a query to n nodes that each hold a part of every list, at a quantile."""
    return latencies.slowest_of(nodes, share) + fan_out_s(network, nodes, nbytes)
