"""Ten thousand damaged shard files: each is refused, or searches as the sound one does."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragschema.errors import CorruptData
from ragschema.storage.manifest import Manifest, file_ref
from ragschema.types import Metric
from retrieval_node.found import native_metric, to_candidates
from retrieval_node.native.loader import native
from retrieval_node.shard import Memory, ShardReader, ShardSet
from tests.ragschema.storage.forging import (
    forged,
    header_of,
    resealed,
    table_span,
    with_right_blocks,
)
from tests.retrieval_node.making import Made, Plan, make

FILES = 10_000
FORGERIES = 1_000
PLAN = Plan(dim=8, m=4, nlist=3, segments=(140,))
EXACT = Plan(dim=8, segments=(40,), exact=True)

Mutation = Callable[[np.random.Generator, bytes], bytes]


def _flipped(rng: np.random.Generator, raw: bytes) -> bytes:
    out = bytearray(raw)
    for at in rng.integers(0, len(raw), rng.integers(1, 9)):
        out[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def _cut(rng: np.random.Generator, raw: bytes) -> bytes:
    return raw[: rng.integers(0, len(raw))]


def _longer(rng: np.random.Generator, raw: bytes) -> bytes:
    return raw + rng.bytes(int(rng.integers(1, 200)))


def _two_ranges(rng: np.random.Generator, raw: bytes) -> tuple[int, int, int]:
    size = int(rng.integers(1, len(raw) // 2))
    first = int(rng.integers(0, len(raw) - 2 * size + 1))
    second = int(rng.integers(first + size, len(raw) - size + 1))
    return first, second, size


def _swapped(rng: np.random.Generator, raw: bytes) -> bytes:
    a, b, n = _two_ranges(rng, raw)
    return raw[:a] + raw[b : b + n] + raw[a + n : b] + raw[a : a + n] + raw[b + n :]


def _repeated(rng: np.random.Generator, raw: bytes) -> bytes:
    a, b, n = _two_ranges(rng, raw)
    return raw[:b] + raw[a : a + n] + raw[b + n :]


def _zeroed(rng: np.random.Generator, raw: bytes) -> bytes:
    a, _, n = _two_ranges(rng, raw)
    return raw[:a] + bytes(n) + raw[a + n :]


def _edited_header(rng: np.random.Generator, raw: bytes) -> bytes:
    """A header that says something else, with every checksum of the head right."""
    header = header_of(raw)
    arrays = header["arrays"]
    one = arrays[rng.integers(len(arrays))]
    other = arrays[rng.integers(len(arrays))]
    match int(rng.integers(8)):
        case 0:
            arrays.remove(one)
        case 1:
            arrays.append(one | {"name": str(rng.choice(["ids", "codes", "more"]))})
        case 2:
            header["kind"] = str(rng.choice(["shard", "tombstones", "", "ivfpq-index"]))
        case 3:
            header["meta"] = {"shard": int(rng.integers(9))}
        case 4:
            key = str(rng.choice(["name", "dtype", "shape", "offset", "bytes"]))
            one[key], other[key] = other[key], one[key]
        case _:
            key = str(rng.choice(["name", "dtype", "shape", "offset", "bytes"]))
            one[key] = _other_value(rng, key, one[key])
    return forged(raw, json.dumps(header, sort_keys=True).encode())


def _other_value(rng: np.random.Generator, key: str, value: Any) -> Any:
    step = int(rng.choice([-64, -1, 1, 4, 64, 128, 1 << 20, -(1 << 40), 1 << 62]))
    match key:
        case "name":
            return str(rng.choice(["ids", "list_offsets", "codes", "bias", "vectors", "x", ""]))
        case "dtype":
            return str(rng.choice(["<f4", "<f2", "<i4", "<i8", "|u1", "<u2", "<u4", "|O", ">f4"]))
        case "shape":
            return [side + step for side in value] + [1] * int(rng.integers(2))
        case _:
            return value + step


def _edited_head(rng: np.random.Generator, raw: bytes) -> bytes:
    """Prefix or block table changed in place, the head's checksum right."""
    start, stop = table_span(raw)
    out = bytearray(raw)
    at = int(rng.choice([*range(28), *range(start, stop)]))
    out[at] ^= 1 << int(rng.integers(0, 8))
    try:
        return resealed(bytes(out))
    except Exception:  # lengths that do not lie in the file: the checksum stays wrong
        return bytes(out)


MUTATIONS: tuple[Mutation, ...] = (
    _flipped, _flipped, _cut, _longer, _swapped, _repeated, _zeroed,
    _edited_header, _edited_header, _edited_header, _edited_head,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A collection of one shard file, and what a search of the sound file finds."""

    made: Made
    path: Path
    raw: bytes
    sound: list[bytes]

    def manifest(self) -> Manifest:
        """One that vouches for the file as it is now."""
        (segment,) = self.made.manifest.segments
        ref = file_ref(self.made.directory, self.path)
        return replace(self.made.manifest, segments=(replace(segment, shards=(ref,)),))

    def put(self, raw: bytes) -> None:
        """Replaces the file as writers do: a mapped one must not change."""
        draft = self.path.with_suffix(".tmp")
        draft.write_bytes(raw)
        os.replace(draft, self.path)

    def searched(self, memory: Memory, verify_up_to_bytes: int) -> list[bytes]:
        reader = ShardReader(memory, verify_up_to_bytes)
        return searched(reader.open(self.made.directory, self.manifest(), (0,)))


def searched(loaded: ShardSet) -> list[bytes]:
    """Everything there is to see: what compiled searches find, and the rows themselves."""
    (segment,) = loaded.shards[0].segments
    module = native()
    seen: list[Any] = []
    if module is not None:
        queries = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
        pool, metric = module.Pool(1), native_metric(loaded.metric)
        if segment.vectors is not None:
            seen.append(module.exact_search([segment.handle], queries, 5, metric, pool))
        if loaded.index is not None and not segment.exact:
            lists = np.tile(np.arange(3, dtype=np.int32), (3, 1))
            for refine_k in (0, 9):
                arguments = (loaded.index.handle, [segment.handle], queries, lists, 5, pool)
                seen += [
                    module.contract_search(*arguments, refine_k=refine_k),
                    module.search(*arguments, refine_k=refine_k),
                ]
    found = [to_candidates(raw, [segment]) for raw in seen]
    out = [a.tobytes() for c in found for a in (c.distances, c.rows, c.counts)]
    segment.file.verify_all()
    segment.row_ids()
    arrays = (segment.ids, segment.list_offsets, segment.codes, segment.bias,
              segment.bias_affine, segment.vectors)  # fmt: skip
    return out + [b"" if a is None else a.tobytes() for a in arrays]


@pytest.fixture(params=["l2", "ip", "exact"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    plan = EXACT if request.param == "exact" else replace(PLAN, metric=Metric(request.param))
    made = make(tmp_path / "c", plan)
    path = made.directory / made.manifest.segments[0].shards[0].path
    sound = searched(ShardReader().open(made.directory, made.manifest, (0,)))
    return Bench(made, path, path.read_bytes(), sound)


def test_damaged_files_are_refused_or_harmless(bench: Bench) -> None:
    seed = 20_261_121
    rng = np.random.default_rng(seed)
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    for number in range(FILES // 3 + 1):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        bench.put(mutation(rng, bench.raw))
        memory: Memory = "huge" if rng.integers(2) else "map"
        try:
            found = bench.searched(memory, 0 if rng.integers(4) else 1 << 20)
        except CorruptData as error:
            assert str(bench.path) in str(error), f"seed {seed}, file {number}"
            outcomes[mutation.__name__, "refused"] += 1
        else:
            assert found == bench.sound, f"seed {seed}, file {number}, {mutation.__name__}"
            outcomes[mutation.__name__, "equal"] += 1
    for mutation in MUTATIONS:
        assert outcomes[mutation.__name__, "refused"] > 50, outcomes
    assert outcomes["_edited_header", "equal"] > 10, outcomes


def test_forged_contents_never_crash(bench: Bench) -> None:
    """With all checksums right nothing can be noticed but what would be unsafe to follow."""
    seed = 42
    rng = np.random.default_rng(seed)
    refused = 0
    _, first = table_span(bench.raw)
    for number in range(FORGERIES // 3):
        raw = bytearray(bench.raw)
        for at in rng.integers(first, len(raw), rng.integers(1, 40)):
            raw[at] = int(rng.integers(0, 256))
        bench.put(with_right_blocks(bytes(raw)))
        try:
            bench.searched("map", 0)
        except CorruptData as error:
            assert str(bench.path) in str(error), f"seed {seed}, file {number}"
            refused += 1
    assert refused
