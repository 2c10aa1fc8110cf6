"""What the search is asked: latency tables of stages, and the resources to spread over them.

A pipeline runs from left to right and ends in decode. Every stage before it handles
requests in batches; ``latency_s[count, batch]`` says how long one batch takes on that
many chips (or servers, for retrieval). A schedule fixes placement, counts and batches:

* **placement**: consecutive chip stages before decode may share their chips, one batch of
  one of them at a time; a server stage between them then blocks the group. Decode is apart,
  or shares the chips of the last group: its steps then run between that group's batches,
  with ``D sum(latency_i / batch_i)`` seconds more for D answers.
* **burst**: the largest batch before decode, B. B requests arrive at once at an empty
  system; TTFT is the mean time until they leave the last stage before decode.
* **QPS** is the smallest of the groups' rates, ``1 / sum(latency_i / batch_i)``, and of
  decode's, whose batch is at least B.

Source: RAGO (arXiv 2503.14649), sections 3 and 6.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.iterative import Iterative
from ragschema.planner.stages import F64, I64, StageKind, StageTable

#: Indices of stages that share one set of chips, in order; a server stage stands alone
#: or inside a group that waits for it.
Group = tuple[int, ...]
Placement = tuple[Group, ...]


class Sharing(enum.StrEnum):
    """Which chip stages before decode may share their chips."""

    NONE = "disaggregated"
    ALL = "collocated"
    ANY = "hybrid"


class Decoding(enum.StrEnum):
    """Whether decode may share the chips of the group before it."""

    APART = "apart"
    EITHER = "either"
    TOGETHER = "together"


@dataclass(frozen=True)
class ChipKind:
    """One kind of chip, and the most there are of it."""

    name: str
    limit: int


@dataclass(frozen=True)
class Weights:
    """What resources count in one rate of the frontier: QPS per chip, per cost, per watt.

    Attributes:
        chips: per kind of chip; empty: 1 each.
        servers: per kind of server; empty: servers do not count.
    """

    name: str
    chips: tuple[float, ...] = ()
    servers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        least = {"chips": np.nextafter(0.0, 1.0), "servers": 0.0}
        for what, lowest in least.items():
            for weight in getattr(self, what):
                if not lowest <= weight < np.inf:
                    raise InvalidInput(
                        f"{weight} is no weight",
                        field=f"weights.{self.name}.{what}",
                        hint="give a number above 0",
                    )


@dataclass(frozen=True, eq=False)
class Problem:
    """A pipeline and its limits; validated here once.

    Attributes:
        stages: in order of a request's way, decode last.
        min_chips, max_chips: of the whole deployment, decode included.
        chips_per_server: servers come with chips: ``total // chips_per_server`` of them;
            None: any number that the server table has.
        uniform_batch: one batch size for all stages before decode.
        sharing: of chips before decode: none, all of them, or any consecutive ones.
        wanted_qps: schedules below it do not count, and what is above it is worth no more,
            so that the best QPS per chip is the fewest chips; None: the more the better.
        kinds: of chips; rows of stage tables name them by place. Empty: one kind.
        weights: one rate of the frontier each.
        iterative: retrievals during decode; None: none.
        max_answer_s: longest that decode may take for an answer, stalls included.
        decoding: whether decode has chips of its own.
        together: the last stage before decode, and decode, where they share chips; None:
            their tables are those of ``stages``.
    """

    stages: tuple[StageTable, ...]
    min_chips: int
    max_chips: int
    chips_per_server: int | None = 4
    uniform_batch: bool = False
    sharing: Sharing = Sharing.ANY
    wanted_qps: float | None = None
    kinds: tuple[ChipKind, ...] = ()
    weights: tuple[Weights, ...] = (Weights("chips"),)
    iterative: Iterative | None = None
    max_answer_s: float = np.inf
    decoding: Decoding = Decoding.APART
    together: tuple[StageTable, StageTable] | None = None
    placements: tuple[Placement, ...] = field(init=False)

    def __post_init__(self) -> None:
        kinds = [stage.kind for stage in self.stages]
        if not kinds or kinds[-1] is not StageKind.DECODE or kinds.count(StageKind.DECODE) != 1:
            raise InvalidInput("decode must be the last stage, once", field="stages")
        if not any(kind is StageKind.CHIP for kind in kinds):
            raise InvalidInput(
                "no stage before decode runs on chips", field="stages", hint="add the prefill stage"
            )
        if kinds.count(StageKind.SERVER) > 1:
            raise InvalidInput("more than one stage runs on servers", field="stages")
        if not 1 <= self.min_chips <= self.max_chips:
            raise InvalidInput(
                f"{self.min_chips} .. {self.max_chips} chips is no range", field="max_chips"
            )
        if self.wanted_qps is not None and not 0 < self.wanted_qps < np.inf:
            raise InvalidInput(
                f"{self.wanted_qps} is no rate",
                field="qps",
                hint="give requests per second above 0",
            )
        if not self.uniform_batch:
            self._check_divisible()
        if not self.kinds:
            object.__setattr__(self, "kinds", (ChipKind("chips", self.max_chips),))
        self._check_kinds()
        object.__setattr__(self, "placements", self._every_placement())

    def _every_placement(self) -> tuple[Placement, ...]:
        apart = tuple(_placements(self.stages, self.sharing))
        if self.decoding is Decoding.APART:
            return apart
        last = len(self.stages) - 1
        if self.stages[last - 1].kind is not StageKind.CHIP:
            raise InvalidInput(
                "the stage before decode runs on no chips that decode could share",
                field="decoding",
                hint="use apart",
            )
        shared = tuple((*groups[:-1], (*groups[-1], last)) for groups in apart)
        return shared if self.decoding is Decoding.TOGETHER else (*apart, *shared)

    def _check_kinds(self) -> None:
        for kind in self.kinds:
            if kind.limit < 0:
                raise InvalidInput(
                    f"{kind.limit} chips", field=f"kinds.{kind.name}", hint="give 0 or more"
                )
        for stage in self.stages:
            if stage.kind is StageKind.SERVER:
                if len(set(stage.kinds or (0,))) > 1 and self.chips_per_server is not None:
                    raise InvalidInput(
                        "servers that come with chips are of one kind",
                        field=f"stages.{stage.name}",
                    )
            elif any(kind >= len(self.kinds) for kind in stage.kinds or ()):
                raise InvalidInput(
                    f"a row names kind {max(stage.kinds or ())} of {len(self.kinds)}",
                    field=f"stages.{stage.name}",
                )
        self._check_weights()
        for stage in (*self.stages, *(self.together or ())):
            batches = len(self.iterative.batches) if self.iterative is not None else 0
            if stage.later_s is not None and stage.later_s.shape != (len(stage.counts), batches):
                raise InvalidInput(
                    f"later latencies of shape {stage.later_s.shape} do not match"
                    f" {len(stage.counts)} counts and {batches} iterative batches",
                    field=f"stages.{stage.name}",
                )

    def _check_weights(self) -> None:
        table = self.server_stage
        servers = max(table.kinds or (0,)) + 1 if table is not None else 0
        for weights in self.weights:
            if weights.chips and len(weights.chips) != len(self.kinds):
                raise InvalidInput(
                    f"{len(weights.chips)} weights for {len(self.kinds)} kinds of chips",
                    field=f"weights.{weights.name}.chips",
                )
            if weights.servers and len(weights.servers) < servers:
                raise InvalidInput(
                    f"{len(weights.servers)} weights for {servers} kinds of servers",
                    field=f"weights.{weights.name}.servers",
                )
        if not self.weights:
            raise InvalidInput("a frontier needs a rate", field="weights")

    def _check_divisible(self) -> None:
        sizes = sorted({b for stage in self.stages[:-1] for b in stage.batches})
        for small, large in itertools.pairwise(sizes):
            if large % small:
                raise InvalidInput(
                    f"batch {large} is no multiple of batch {small}: a burst would not divide"
                    " into whole batches",
                    field="batches",
                    hint="use powers of two, or one batch for all stages",
                )

    def groups_of(self, placement: Placement) -> Placement:
        """All groups of a placement, with decode in its own or in the last one."""
        return placement if self.shares(placement) else (*placement, (len(self.stages) - 1,))

    def shares(self, placement: Placement) -> bool:
        """Whether decode is on the chips of the last group."""
        return placement[-1][-1] == len(self.stages) - 1

    def stages_in(self, placement: Placement) -> tuple[StageTable, ...]:
        """The stages with the tables that hold in a placement."""
        if self.together is None or not self.shares(placement):
            return self.stages
        return (*self.stages[:-2], *self.together)

    @property
    def iterative_batches(self) -> tuple[int | None, ...]:
        """What there is to choose from; None alone: nothing retrieves during decode."""
        return (None,) if self.iterative is None else self.iterative.batches

    def later_of(self, stage: StageTable, row: int, iterative_batch: int | None) -> float:
        """Seconds of an iterative batch in a row of a stage; 0: it does not go there."""
        if stage.later_s is None or self.iterative is None or iterative_batch is None:
            return 0.0
        return float(stage.later_s[row, self.iterative.batches.index(iterative_batch)])

    def answer_s(self, decode_s: F64, batch: F64, later_s: F64, iterative_batch: int | None) -> F64:
        """Seconds of an answer from its first to its last token, stalls included."""
        if self.iterative is None or iterative_batch is None:
            return decode_s
        return self.iterative.answer_s(decode_s, batch, later_s, iterative_batch)

    @property
    def before_decode(self) -> tuple[StageTable, ...]:
        return self.stages[:-1]

    @property
    def decode(self) -> StageTable:
        return self.stages[-1]

    @property
    def bursts(self) -> tuple[int, ...]:
        """Sizes of bursts, ascending: a batch of some stage, within decode's largest."""
        sizes = {b for stage in self.before_decode for b in stage.batches}
        return tuple(sorted(b for b in sizes if b <= self.decode.batches[-1]))

    def worth(self, rate: F64) -> F64:
        """Rates as they count: 0 below the wanted one, and no more than it."""
        if self.wanted_qps is None:
            return rate
        # Sums in another order may fall short by a few bits.
        short = rate < self.wanted_qps * (1 - 1e-12)
        worth: F64 = np.where(short, 0.0, np.minimum(rate, self.wanted_qps))
        return worth

    @cached_property
    def server_stage(self) -> StageTable | None:
        """The stage that runs on servers; None without one."""
        return next((s for s in self.before_decode if s.kind is StageKind.SERVER), None)

    @cached_property
    def lowest_total(self) -> int:
        """Fewest chips in all: the smallest server count needs its chips too."""
        table = self.server_stage
        if table is None or self.chips_per_server is None:
            return self.min_chips
        return max(self.min_chips, min(table.counts) * self.chips_per_server)

    @cached_property
    def server_totals(self) -> I64:
        """Per row of the server table the lowest and highest total of chips: int64 [rows, 2].

        A number of servers without a row of its own takes the next lower row. Empty
        without a server stage.
        """
        if self.server_stage is None:
            return np.zeros((0, 2), dtype=np.int64)
        if self.chips_per_server is None:
            return np.array([[self.lowest_total, self.max_chips]] * len(self.server_stage.counts))
        counts = np.array(self.server_stage.counts, dtype=np.int64) * self.chips_per_server
        high = np.append(counts[1:] - 1, self.max_chips)
        return np.stack(
            [np.maximum(counts, self.lowest_total), np.minimum(high, self.max_chips)], axis=1
        )


def _placements(stages: tuple[StageTable, ...], sharing: Sharing) -> Iterator[Placement]:
    chips = [i for i, stage in enumerate(stages[:-1]) if stage.kind is StageKind.CHIP]
    joints = len(chips) - 1
    masks = {
        Sharing.NONE: range(1),
        Sharing.ALL: range((1 << joints) - 1, 1 << joints),
        Sharing.ANY: range(1 << joints),
    }
    for mask in masks[sharing]:
        groups: list[Group] = []
        for i in range(len(stages) - 1):
            place = chips.index(i) if i in chips else 0
            if place and mask >> (place - 1) & 1:
                # The servers passed since the last chip stage now block the group.
                at = next(g for g, group in enumerate(groups) if chips[place - 1] in group)
                groups[at:] = [(*(s for group in groups[at:] for s in group), i)]
            else:
                groups.append((i,))
        yield tuple(groups)
