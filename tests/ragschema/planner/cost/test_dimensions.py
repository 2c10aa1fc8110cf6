"""Every cost function in other units: seconds and bytes of another size change nothing else.

A term that adds seconds to bytes, or forgets a rate, gives another answer in other units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from ragschema.hardware.devices import Accelerator, Fpga, Host, find_device
from ragschema.models import Transformer, find_model
from ragschema.planner.cost.batches import answers, decode_on, held_on, prefill_on, prompts
from ragschema.planner.cost.inference import Precision, Split, Work, all_reduce_s, encode_s, pass_s
from ragschema.planner.cost.interleaved import Interleaved
from ragschema.planner.cost.ivfpq import IvfPq, ivfpq_s
from ragschema.planner.cost.network import (
    Latencies,
    Network,
    fan_out_s,
    message_s,
    shared_query_s,
)
from ragschema.planner.cost.retrieval import Database, exact_on_gpu_s, search_s

MODELS = {name: find_model(name) for name in ("llama-3-8b", "mixtral-8x7b", "deepseek-v3")}
GPU = find_device("h100-sxm")
HOST = find_device("epyc-7763")
CARD = find_device("u55c")
assert isinstance(GPU, Accelerator)
assert isinstance(HOST, Host)
assert isinstance(CARD, Fpga)
SCANNING = dataclasses.replace(GPU, scan_share=0.4, launch_s=1e-4, link_latency_s=2e-6)
SPLIT = Split(1, 4, 2)
INDEX = IvfPq(1e8, 128, 16.0, 16_384, 32 / 16_384)
TREE = Database(1e9, 96.0, 0.001, 4096)


def units(thing: Any, second: float, byte: float) -> Any:
    """A dataclass of figures in units of which ``second`` make a second, ``byte`` a byte."""
    values: dict[str, Any] = {}
    for each in dataclasses.fields(thing):
        value = getattr(thing, each.name)
        if not isinstance(value, float):
            continue
        name = each.name
        factor = 1.0
        if name.endswith("_per_s") or name.endswith("_hz"):
            factor = 1 / second
        elif name.endswith("_s"):
            factor = second
        if name.removesuffix("_per_s").endswith("bytes") or name.startswith("bytes_"):
            factor *= byte
        values[name] = value * factor
    return dataclasses.replace(thing, **values)


Timed = Callable[[float, float], float]


def _prefill(model: Transformer) -> Timed:
    def timed(second: float, byte: float) -> float:
        found = prefill_on(
            model, units(SCANNING, second, byte), units(Precision(), second, byte), Split(2, 4, 16),
            16, prompts(700, 100),
        )  # fmt: skip
        assert found is not None
        return found.seconds

    return timed


def _decode(model: Transformer) -> Timed:
    def timed(second: float, byte: float) -> float:
        found = decode_on(
            model, units(SCANNING, second, byte), units(Precision(), second, byte), Split(2, 4, 16),
            16, answers(512, 100),
        )  # fmt: skip
        assert found is not None
        return found.seconds

    return timed


def _pass(model: Transformer) -> Timed:
    return lambda second, byte: pass_s(
        model, units(SCANNING, second, byte), units(Precision(), second, byte),
        Work(8, 32, 300.0), SPLIT,
    )  # fmt: skip


WITH_BYTES: dict[str, Timed] = {
    **{f"pass_s of {name}": _pass(model) for name, model in MODELS.items()},
    **{f"prefill_on of {name}": _prefill(model) for name, model in MODELS.items()},
    **{f"decode_on of {name}": _decode(model) for name, model in MODELS.items()},
    "all_reduce_s": lambda s, b: all_reduce_s(1e6 * b, 4, units(SCANNING, s, b)),
    "encode_s": lambda s, b: encode_s(1e8, units(GPU, s, b), 1.0 * b, 2, 16, 128),
    "search_s of a tree": lambda s, b: search_s(units(TREE, s, b), units(HOST, s, b), 4, 64) or 0.0,
    "search_s of all": lambda s, b: (
        search_s(
            dataclasses.replace(units(TREE, s, b), fanout=None, scan_share=1.0),
            units(HOST, s, b), 4, 64,
        ) or 0.0
    ),
    "exact_on_gpu_s": lambda s, b: (
        exact_on_gpu_s(Database(1e6, 256.0 * b), units(SCANNING, s, b), 1, 64, 128) or 0.0
    ),
    "message_s": lambda s, b: message_s(units(Network(1e-5, 1e9), s, b), 1e6 * b),
    "fan_out_s": lambda s, b: fan_out_s(units(Network(1e-5, 1e9), s, b), 9, 1e6 * b),
    "shared_query_s": lambda s, b: shared_query_s(
        units(Network(1e-5, 1e9), s, b), Latencies((0.0, 1.0), (1e-3 * s, 5e-3 * s)), 9, 1e6 * b
    ),
}  # fmt: skip

#: Ids and centroids of a size of their own stand in these.
IN_SECONDS: dict[str, Timed] = {
    "ivfpq_s on a host": lambda s, b: ivfpq_s(INDEX, units(HOST, s, 1), 2, 16) or 0.0,
    "ivfpq_s on a gpu": lambda s, b: ivfpq_s(INDEX, units(SCANNING, s, 1), 2, 16) or 0.0,
    "ivfpq_s on a card": lambda s, b: ivfpq_s(INDEX, units(CARD, s, 1), 2, 16) or 0.0,
}


@pytest.mark.parametrize("name", [*WITH_BYTES, *IN_SECONDS])
def test_in_milliseconds_there_are_a_thousand_times_as_many(name: str) -> None:
    timed = (WITH_BYTES | IN_SECONDS)[name]
    plain = timed(1.0, 1.0)
    assert plain > 0
    assert timed(1000.0, 1.0) == pytest.approx(1000 * plain, rel=1e-9)


@pytest.mark.parametrize("name", list(WITH_BYTES))
def test_in_bits_seconds_stay_the_same(name: str) -> None:
    timed = WITH_BYTES[name]
    assert timed(1.0, 8.0) == pytest.approx(timed(1.0, 1.0), rel=1e-9)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_is_held_is_bytes(model: Transformer) -> None:
    plain = held_on(model, Precision(), SPLIT, 8, prompts(600))
    bits = held_on(model, units(Precision(), 1, 8), SPLIT, 8, prompts(600))
    assert bits.weights == pytest.approx(8 * plain.weights)
    assert bits.cache == pytest.approx(8 * plain.cache)


def test_tokens_per_second_are_per_second() -> None:
    plain = Interleaved(8, 64, 2e-3, 1e-2)
    assert units(plain, 1000.0, 1.0).tokens_per_s(100.0, 50.0) == pytest.approx(
        plain.tokens_per_s(100.0, 50.0) / 1000
    )
