"""From a workload and a pool to the latency tables that the search works on."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Device
from ragschema.planner.problem import ChipKind, Decoding, Problem, Sharing, Weights
from ragschema.planner.shared_chips import Sizes
from ragschema.planner.tables import StageTables, powers_of_two
from ragschema.pool import Pool
from ragschema.workload import RagSchema


class Counts(enum.StrEnum):
    """Which numbers of chips a stage may get."""

    POWERS_OF_TWO = "pow2"
    EVERY = "every"


@dataclass(frozen=True)
class SearchSpace:
    """Sizes the search may choose from.

    Attributes:
        max_batch: largest batch before decode; powers of two up to it are tried.
        max_decode_batch: the same for decode.
        max_iterative_batch: the same for sequences that retrieve together during decode.
        decoding: whether decode may share the chips of the stages before it.
        engines: processes among which the cores of such decode are divided; None: whichever
            number is best.
    """

    counts: Counts = Counts.POWERS_OF_TWO
    max_batch: int = 128
    max_decode_batch: int = 1024
    max_iterative_batch: int = 64
    sharing: Sharing = Sharing.ANY
    decoding: Decoding = Decoding.APART
    engines: int | None = None


class Rate(enum.StrEnum):
    """What requests per second are divided by."""

    PER_CHIP = "qps_per_chip"
    PER_COST = "cost"
    PER_WATT = "energy"


def problem_of(
    schema: RagSchema,
    pool: Pool,
    space: SearchSpace | None = None,
    rates: tuple[Rate, ...] = (Rate.PER_CHIP,),
) -> Problem:
    """The search problem of a workload on a pool.

    Args:
        rates: of the frontier, beside TTFT.

    Raises:
        InvalidInput: the pool cannot hold a model or the database at all, or a device lacks
            a price or watts that a rate asks for.
    """
    space = space or SearchSpace()
    build = StageTables(schema, pool, _sizes(space, pool))
    searched = schema.database is not None
    return Problem(
        build.all(),
        pool.min_chips,
        pool.max_chips,
        chips_per_server=pool.chips_per_node,
        sharing=space.sharing,
        kinds=tuple(ChipKind(c.device.name, c.count) for c in pool.chips),
        weights=tuple(weights_for(rate, pool, searched) for rate in rates),
        iterative=build.iterative,
        decoding=space.decoding,
        together=None if space.decoding is Decoding.APART else build.together(),
    )


def _sizes(space: SearchSpace, pool: Pool) -> Sizes:
    # Apart from all others, decode leaves one chip less than there are.
    apart = space.decoding is Decoding.APART
    most = max(1, pool.max_chips - 1 if apart else pool.max_chips)
    every = range(1, most + 1)
    counts = tuple(every) if space.counts is Counts.EVERY else powers_of_two(most)
    return Sizes(
        counts,
        powers_of_two(space.max_batch),
        powers_of_two(space.max_decode_batch),
        powers_of_two(space.max_iterative_batch),
        space.engines or 1,
    )


def divisions(space: SearchSpace, pool: Pool, by_kind: bool = False) -> tuple[SearchSpace, ...]:
    """The space with each number of engines that the pool's cores may be divided among.

    Args:
        by_kind: decode apart and together are spaces of their own: whoever answers fewer in all
            may be the one that answers in time.
    """
    cores = [c.count for c in pool.chips if c.device.name in pool.measured
             and pool.measured[c.device.name].cores]  # fmt: skip
    if space.engines is not None or space.decoding is Decoding.APART or not cores:
        return (space,)
    counts = powers_of_two(min(max(cores), space.max_batch))
    if not by_kind or space.decoding is Decoding.TOGETHER:
        return tuple(replace(space, engines=n) for n in counts)
    together = (replace(space, engines=n, decoding=Decoding.TOGETHER) for n in counts)
    return (*together, replace(space, decoding=Decoding.APART))


def weights_for(rate: Rate, pool: Pool, searched: bool) -> Weights:
    """What each device of a pool counts.

    Args:
        searched: retrieval nodes are needed. Those that come with accelerators and have no
            price of their own are in the accelerators' price.
    """
    if rate is Rate.PER_CHIP:
        return Weights(rate)
    figure = "price_per_h" if rate is Rate.PER_COST else "watts"
    chips = tuple(_figure(c.device, figure) for c in pool.chips)
    if not searched:
        return Weights(rate, chips)
    if pool.chips_per_node is not None:
        with_chips = tuple(getattr(n.device, figure) or 0.0 for n in pool.nodes)
        return Weights(rate, chips, with_chips)
    return Weights(rate, chips, tuple(_figure(n.device, figure) for n in pool.nodes))


def _figure(device: Device, name: str) -> float:
    value: float | None = getattr(device, name)
    if value is None:
        raise InvalidInput(
            f"{device.name!r} has no {name}",
            field=f"pool.{device.name}.{name}",
            hint=f"give {name} beside its count in the pool file, or in the device's file",
        )
    return value
