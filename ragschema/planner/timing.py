"""Where latencies come from: a device's profile where it measured the role, else a cost model.

A measured device is used whole: n of them are n replicas that share a batch, or n nodes that
share a database; n cores are a process with n threads. What a batch holds in memory is
modelled either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ragschema.hardware.devices import Accelerator, Fpga, Host
from ragschema.measured import Measured
from ragschema.models import Transformer, find_model
from ragschema.planner.cost.batches import (
    Held,
    Sequences,
    Timed,
    decode_on,
    held_on,
    prefill_on,
    quickest,
)
from ragschema.planner.cost.inference import Precision, Split, encode_s, splits
from ragschema.planner.searching import Retrieval
from ragschema.workload import (
    EncoderConfig,
    GeneratorConfig,
    RerankerConfig,
    RewriterConfig,
    bytes_of,
)

#: Roles that a search passes one after the other; embedding is that of the question.
_SEARCHING: Final = ("embed", "index_scan", "pq_scan", "retrieval_call", "coordinator")

#: A batch on so many chips; None: it does not fit, or was not measured.
OnChips = Callable[[Accelerator, int, int], Timed | None]


@dataclass(frozen=True)
class LanguageModel:
    """A model that reads prompts and writes answers.

    Attributes:
        name: as the schema has it, and profiles.
        measured: by name of device.
        beside: processes that work on other cores of the same machine meanwhile.
    """

    name: str
    model: Transformer
    precision: Precision
    measured: Mapping[str, Measured]
    beside: int = 0

    @classmethod
    def of(
        cls, config: GeneratorConfig | RewriterConfig, measured: Mapping[str, Measured]
    ) -> LanguageModel:
        """The model of a schema's generator or rewriter.

        Raises:
            InvalidInput, NotFound: there is no such model.
        """
        precision = Precision(bytes_of(config.weights), bytes_of(config.kv))
        return cls(config.model, find_model(config.model), precision, measured)

    def splits(self, chip: Accelerator, chips: int) -> Sequence[Split]:
        """How n chips may be split; measured ones into replicas only, and cores into threads."""
        if self._variant(chip, "prefill") or self._variant(chip, "decode"):
            # Cores share one copy of the weights, replicas do not.
            cores = self.measured[chip.name].cores
            return (Split(1, chips, 1) if cores else Split(chips, 1, 1),)
        return tuple(splits(chips, self.model))

    def divided(self, chip: Accelerator, chips: int, engines: int) -> Sequence[Split]:
        """n chips among so many engines: n cores are processes of as many threads each."""
        measured = self.measured.get(chip.name)
        if engines == 1 or measured is None or not measured.cores:
            return self.splits(chip, chips)
        return (Split(engines, chips // engines, 1),) if chips % engines == 0 else ()

    def read(self, chip: Accelerator, split: Split, batch: int, read: Sequences) -> Timed | None:
        """A batch of prompts on one split."""
        variant = self._variant(chip, "prefill")
        if variant is None:
            return prefill_on(self.model, chip, self.precision, split, batch, read)
        at = {
            "tokens": read.tokens,
            "context": read.context,
            "cached": max(0.0, read.held - read.tokens),
        }
        return self._measured("prefill", variant, chip, split, batch, read, at, 1.0)

    def write(
        self, chip: Accelerator, split: Split, batch: int, written: Sequences
    ) -> Timed | None:
        """A running batch until each has written its tokens, on one split."""
        variant = self._variant(chip, "decode")
        if variant is None:
            return decode_on(self.model, chip, self.precision, split, batch, written)
        at = {"tokens": written.context, "context": written.context}
        steps = written.tokens
        return self._measured("decode", variant, chip, split, batch, written, at, steps)

    def mix(self, chip: Accelerator, split: Split, batch: int, written: Sequences) -> Timed | None:
        """One step of a running batch that takes a piece of a prompt along, on one split.

        None: not possible, or not measured.
        """
        variant = self._variant(chip, "mixed")
        if variant is None:
            return None
        at = {"tokens": written.context}
        return self._measured("mixed", variant, chip, split, batch, written, at, 1.0)

    def piece_tokens(self, chips: Iterable[Accelerator]) -> float | None:
        """Of a prompt, in a step that writes too; None: not measured on all of these."""
        found = set()
        for chip in chips:
            variant = self._variant(chip, "mixed")
            if variant is None:
                return None
            found.add(self.measured[chip.name].about("mixed", variant, "piece"))
        return found.pop() if len(found) == 1 else None

    def embed_s(self, chip: Accelerator, split: Split, tokens: float) -> float:
        """A question of so many tokens, embedded beside the model; 0: not measured."""
        found = self.measured.get(chip.name)
        if found is None or not found.knows("embed"):
            return 0.0
        threads = split.tensor * split.pipeline
        once = found.seconds("embed", None, {"batch": 1.0, "tokens": tokens}, threads)
        return 0.0 if once is None else once.seconds

    def moving_s(self, chip: Accelerator, nbytes: float) -> float | None:
        """KV of a prompt from a prefill node to a decode node; None: not measured."""
        variant = self._variant(chip, "kv_transfer")
        if variant is None:
            return None
        found = self.measured[chip.name].seconds("kv_transfer", variant, {"bytes": nbytes})
        return None if found is None else found.seconds

    def reading(self, read: Sequences) -> OnChips:
        """``read`` on the best split."""
        return lambda chip, n, b: quickest(
            self.read(chip, split, b, read) for split in self.splits(chip, n)
        )

    def writing(self, written: Sequences) -> OnChips:
        """``write`` on the best split."""
        return lambda chip, n, b: quickest(
            self.write(chip, split, b, written) for split in self.splits(chip, n)
        )

    def _variant(self, chip: Accelerator, role: str) -> str | None:
        """What the chip's profile calls this model; None: it was not measured in the role."""
        found = self.measured.get(chip.name)
        if found is None:
            return None
        path = Path(self.name)
        # A node names a checkpoint by its folder.
        checkpoint = path.parent.name if path.suffix == ".json" else self.name
        names = (self.name, f"hf:{checkpoint}")
        return next((n for n in names if found.knows(role, n)), None)

    def _measured(
        self,
        role: str,
        variant: str,
        chip: Accelerator,
        split: Split,
        batch: int,
        sequences: Sequences,
        at: Mapping[str, float],
        times: float,
    ) -> Timed | None:
        mine = math.ceil(batch / split.data)
        held = held_on(self.model, self.precision, split, mine, sequences)
        if held.total > chip.memory_bytes:
            return None
        threads = split.tensor * split.pipeline
        found = self.measured[chip.name].seconds(role, variant, {**at, "batch": mine}, threads)
        if found is None:
            return None
        crowded = self._crowded(chip, split, variant)
        return Timed(times * crowded * found.seconds, split, held, found.spread)

    def _crowded(self, chip: Accelerator, split: Split, variant: str) -> float:
        """How many times longer all takes beside other processes; 1 where nobody measured it."""
        measured, processes = self.measured[chip.name], split.data + self.beside
        if not measured.cores or processes == 1 or not measured.knows("crowded", variant):
            return 1.0
        threads = split.tensor * split.pipeline
        alone, beside = (
            measured.seconds("crowded", variant, {"processes": float(count)}, threads)
            for count in (1, 2)  # more of them were not measured, and are taken for two
        )
        return 1.0 if alone is None or beside is None else max(1.0, beside.seconds / alone.seconds)


def encoding(
    config: EncoderConfig | RerankerConfig,
    pieces: int,
    tokens: int,
    role: str,
    measured: Mapping[str, Measured],
) -> OnChips:
    """An encoder that reads so many pieces of so many tokens per request.

    Args:
        role: of a profile: ``embed`` or ``rerank``.
    """
    width = bytes_of(config.weights)

    def timed(chip: Accelerator, n: int, b: int) -> Timed | None:
        split, held = Split(n, 1, 1), Held(config.parameters * width, 0.0)
        profile = measured.get(chip.name)
        if profile is None or not profile.knows(role):
            seconds = encode_s(config.parameters, chip, width, n, b * pieces, tokens)
            return Timed(seconds, split, held)
        mine = b * pieces if profile.cores else math.ceil(b * pieces / n)
        found = profile.seconds(role, None, {"batch": mine, "tokens": tokens}, n)
        if found is None:
            return None
        return Timed(found.seconds, split, held, found.spread)

    return timed


def searching(
    search: Retrieval, node: Host | Fpga | Accelerator, measured: Mapping[str, Measured]
) -> Callable[[int, int], Timed | None]:
    """Retrieval for a batch of requests on n nodes, by n and batch."""
    split, nothing = Split(1, 1, 1), Held(0.0, 0.0)
    profile = measured.get(node.name)

    def timed(nodes: int, batch: int) -> Timed | None:
        if profile is None or not profile.knows("pq_scan"):
            seconds = search.seconds(nodes, batch)
            return None if seconds is None else Timed(seconds, split, nothing)
        if not search.fits(nodes):
            return None
        at = search.features(nodes, batch)
        roles = [role for role in _SEARCHING if profile.knows(role)]
        parts = [profile.quickest(role, at) for role in roles]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        total = sum(part.seconds for part in found)
        spread = sum(part.high for part in found) / total - 1
        return Timed(total + search.network_s(nodes, batch), split, nothing, spread)

    return timed
