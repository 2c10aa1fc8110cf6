"""The compiled kernels against float64, on every code path of this machine."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.native.loader import native

F32, I32, I64 = np.float32, np.int32, np.int64


@pytest.fixture(scope="module")
def module() -> ModuleType:
    found = native()
    if found is None:
        pytest.skip("the extension was not built")
    return found


def _normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, dtype=F32)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 9, 16, 17, 25, 48, 63, 65, 130])
def test_linear(module: ModuleType, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    for rows, columns in [(1, 1), (5, 7), (97, 512), (131, 300), (200, 33)]:
        x, weight, bias = _normal(rng, tokens, rows), _normal(rng, columns, rows), None
        if tokens % 2:
            bias = _normal(rng, columns)
        expected = x.astype(np.float64) @ weight.T.astype(np.float64)
        expected += 0 if bias is None else bias
        for isa in module.machine_isas():
            for threads in (1, 3):
                y = np.full((tokens, columns), np.nan, F32)
                module.linear(x, weight, bias, y, threads=threads, isa=isa)
                assert np.abs(y - expected).max() <= 4e-6 * max(rows, 4) ** 0.5, (isa, rows)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 9, 17, 48, 65, 130])
def test_linear_over_bfloat16(module: ModuleType, tokens: int) -> None:
    """The weight is rounded, and nothing else: sums are those of float32."""
    rng = np.random.default_rng(tokens)
    for rows, columns in [(1, 1), (5, 7), (97, 512), (131, 300), (300, 33)]:
        x, exact, bias = _normal(rng, tokens, rows), _normal(rng, columns, rows), None
        weight = torch.from_numpy(exact).bfloat16()
        if tokens % 2:
            bias = _normal(rng, columns)
        expected = x.astype(np.float64) @ weight.double().numpy().T
        expected += 0 if bias is None else bias
        bits = weight.view(torch.uint16).numpy()
        for isa in module.machine_isas():
            for threads in (1, 3):
                y = np.full((tokens, columns), np.nan, F32)
                module.linear(x, bits, bias, y, threads=threads, isa=isa)
                assert np.abs(y - expected).max() <= 4e-6 * max(rows, 4) ** 0.5, (isa, rows)


def test_every_bfloat16_is_widened_exactly(module: ModuleType) -> None:
    """All 65 536 of them, NaN and infinities too, with a product and with tiles."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    for isa in module.machine_isas():
        for tokens in (1, 16):
            y = np.empty((tokens, len(bits)), F32)
            module.linear(np.ones((tokens, 1), F32), bits[:, None], None, y, isa=isa)
            for row in y:
                np.testing.assert_array_equal(row, expected)


def _attention(
    query: Any, keys: Any, values: Any, scale: float, window: int | None, cap: float | None
) -> Any:
    """float64 [q, heads, value_dim] of the last q of L tokens, token by token."""
    count, heads, _ = query.shape
    out = np.empty((count, heads, values.shape[2]))
    for i in range(count):
        own = len(keys) - count + i
        first = 0 if window is None else max(0, own - window + 1)
        for head in range(heads):
            shared = head // (heads // keys.shape[1])
            scores = keys[first : own + 1, shared] @ query[i, head] * scale
            scores = scores if cap is None else cap * np.tanh(scores / cap)
            weights = np.exp(scores - scores.max())
            out[i, head] = weights @ values[first : own + 1, shared] / weights.sum()
    return out


class Step:
    """A random step over a cache in which everything else is NaN."""

    def __init__(self, seed: int) -> None:
        choose, rng = random.Random(seed), np.random.default_rng(seed)
        self.size = choose.choice([1, 4, 16])
        kv_heads, group = choose.choice([1, 2, 3]), choose.choice([1, 2, 4, 5, 17])
        dim = choose.choice([3, 8, 20, 64])
        value_dim = choose.choice([dim, 5, 32])
        self.lengths = [
            (choose.choice([0, 3, 31, 32, 33, 70, 200]), choose.choice([1, 1, 2, 16, 63, 65]))
            for _ in range(choose.randrange(1, 6))
        ]
        self.how = {
            "scale": dim**-0.5,
            "window": choose.choice([None, 1, 3, 40, 1000]),
            "softcap": choose.choice([None, 2.0, 50.0]),
        }
        contexts = [start + count for start, count in self.lengths]
        used = [-(-context // self.size) for context in contexts]
        self.blocks = sum(used) + 3
        free = list(range(self.blocks))
        choose.shuffle(free)
        self.tables = np.full((len(used), max(used) + 1), -7, I32)
        slots = (self.blocks + 1) * self.size
        self.keys = np.full((slots, kv_heads, dim), np.nan, F32)
        self.values = np.full((slots, kv_heads, value_dim), np.nan, F32)
        # Heads before tokens, as models give them.
        total = sum(count for _, count in self.lengths)
        self.query = _normal(rng, kv_heads * group, total, dim).transpose(1, 0, 2)
        self.contexts = np.array(contexts, I32)
        self.starts = np.cumsum([0, *(count for _, count in self.lengths)], dtype=I32)
        self.expected = np.empty((total, kv_heads * group, value_dim))
        for i, context in enumerate(contexts):
            self.tables[i, : used[i]] = [free.pop() for _ in range(used[i])]
            places = np.arange(context)
            at = self.tables[i, places // self.size] * self.size + places % self.size
            self.keys[at] = keys = _normal(rng, context, kv_heads, dim)
            self.values[at] = values = _normal(rng, context, kv_heads, value_dim)
            rows = slice(self.starts[i], self.starts[i + 1])
            self.expected[rows] = _attention(self.query[rows], keys, values, *self.how.values())

    def batch(self, module: ModuleType, **changes: Any) -> Any:
        given = {
            "starts": self.starts, "contexts": self.contexts, "tables": self.tables,
            "block_tokens": self.size, "blocks": self.blocks,
        }  # fmt: skip
        return module.Batch(**{**given, **changes})

    def attend(self, module: ModuleType, **others: Any) -> Any:
        out = np.full(self.expected.shape, np.nan, F32)
        arrays = {"query": self.query, "keys": self.keys, "values": self.values, "out": out}
        self.batch(module).attend(**{**arrays, **self.how, **others})
        return out


@pytest.mark.parametrize("seed", range(25))
def test_attention(module: ModuleType, seed: int) -> None:
    step = Step(seed)
    for isa in module.machine_isas():
        found = step.attend(module, isa=isa, threads=2)
        assert np.abs(found - step.expected).max() <= 1e-5, (isa, step.lengths, step.how)


@pytest.mark.parametrize("seed", range(25))
def test_attention_over_bfloat16(module: ModuleType, seed: int) -> None:
    """As over the same numbers in float32: they are widened, and nothing else is rounded."""
    step = Step(seed)
    halves = {
        name: torch.from_numpy(array).bfloat16()
        for name, array in (("keys", step.keys), ("values", step.values))
    }
    bits = {name: half.view(torch.uint16).numpy() for name, half in halves.items()}
    wide = {name: half.float().numpy() for name, half in halves.items()}
    for isa in module.machine_isas():
        found = step.attend(module, isa=isa, threads=2, **bits)
        expected = step.attend(module, isa=isa, threads=2, **wide)
        assert np.abs(found - expected).max() <= 2e-6, (isa, step.lengths, step.how)


def test_keys_and_values_are_of_one_dtype(module: ModuleType) -> None:
    step = Step(1)
    for name, array in (("keys", step.keys), ("values", step.values)):
        bits = torch.from_numpy(array).bfloat16().view(torch.uint16).numpy()
        with pytest.raises(ValueError, match=r"keys|values"):
            step.attend(module, **{name: bits})


def test_results_do_not_depend_on_threads(module: ModuleType) -> None:
    step = Step(4)
    assert np.array_equal(step.attend(module, threads=1), step.attend(module, threads=4))


def test_large_scores_do_not_overflow(module: ModuleType) -> None:
    step = Step(2)
    step.how["softcap"] = None
    for isa in module.machine_isas():
        assert np.isfinite(step.attend(module, isa=isa, scale=1e6)).all()


def test_nan_stays_with_the_sequence_that_has_it(module: ModuleType) -> None:
    for seed in range(6):
        step = Step(seed)
        first = step.tables[0, 0] * step.size
        step.keys[first] = np.nan
        step.how["window"] = None
        out = step.attend(module)
        own = slice(0, step.starts[1])
        assert np.isnan(out[own]).all()
        assert np.isfinite(out[own.stop :]).all()


def test_what_does_not_fit_is_refused(module: ModuleType) -> None:
    step = Step(1)
    out = np.empty(step.expected.shape, F32)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("starts", {"starts": step.starts[:-1].copy()}),
        ("starts", {"starts": step.starts + 1}),
        ("starts", {"starts": np.zeros_like(step.starts)}),
        ("starts", {"starts": step.starts.astype(I64)}),
        ("contexts", {"contexts": np.zeros_like(step.contexts)}),
        ("tables", {"tables": step.tables[:, :0].copy()}),
        ("tables", {"tables": step.tables + step.blocks}),
        ("tables", {"tables": np.full_like(step.tables, -1)}),
        ("block_tokens", {"block_tokens": 0}),
    ]
    for name, change in bad:
        with pytest.raises(ValueError, match=name):
            step.batch(module, **change)
    for name, change in [
        ("query", {"query": step.query[:-1]}),
        ("query", {"query": step.query[:, :, :1]}),
        ("query", {"query": step.query.astype(np.float64)}),
        ("keys", {"keys": step.keys[: step.blocks * step.size - 1]}),
        ("keys", {"keys": step.keys[::2]}),
        ("values", {"values": step.values[:-1]}),
        ("out", {"out": out[:, :, :1].copy()}),
        ("out", {"out": torch.empty(3)}),
        ("window", {"window": 0}),
        ("softcap", {"softcap": -1.0}),
        ("scale", {"scale": float("nan")}),
        ("isa", {"isa": "mmx"}),
    ]:
        with pytest.raises(ValueError, match=name):
            step.attend(module, **change)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: it is read-only"):
        step.attend(module, out=out)


def test_scatter(module: ModuleType) -> None:
    rng = np.random.default_rng(5)
    pool = _normal(rng, 40, 3, 5)
    expected, slots = pool.copy(), rng.permutation(40)[:17]
    rows = _normal(rng, 3, 17, 5).transpose(1, 0, 2)
    expected[slots] = rows
    module.scatter(pool, slots, rows, threads=2)
    assert np.array_equal(pool, expected)
    for name, given in [
        ("slots", (pool, slots + 40, rows)),
        ("slots", (pool, slots - 40, rows)),
        ("rows", (pool, slots[1:].copy(), rows)),
        ("rows", (pool, slots, rows[:, :2])),
        ("rows", (pool, slots, rows.transpose(0, 2, 1))),
    ]:
        with pytest.raises(ValueError, match=name):
            module.scatter(*given)
    assert np.array_equal(pool, expected)


def test_linear_refuses_what_does_not_fit(module: ModuleType) -> None:
    x, weight, y = np.ones((3, 4), F32), np.ones((5, 4), F32), np.empty((3, 5), F32)
    for name, given in [
        ("x", (x[:, :2].copy(), weight, None, y)),
        ("x", (x[:, ::2], weight[:, :2].copy(), None, y)),
        ("weight", (x, weight.astype(np.float64), None, y)),
        ("weight", (x, weight.astype(np.float16), None, y)),
        ("weight", (x, weight.astype(np.uint16)[:, ::2], None, y)),
        ("x", (x, np.ones((5, 3), np.uint16), None, y)),
        ("bias", (x, weight, np.ones(4, F32), y)),
        ("y", (x, weight, None, y[:2])),
    ]:
        with pytest.raises(ValueError, match=name):
            module.linear(*given)
    module.linear(x[:0], weight, None, y[:0])
