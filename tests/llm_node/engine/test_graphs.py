"""Steps of fixed shapes give what any other step gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.graphs import DecodeGraphs, Outputs, compiled, power_of_two
from llm_node.engine.kernels import Kernels
from llm_node.engine.load import load_model
from llm_node.engine.runner import Runner
from ragschema.errors import InvalidInput
from tests.llm_node.engine.families import save_family
from tests.llm_node.engine.harness import Run, greedy, prompt_of
from tests.llm_node.engine.interpreter import need_interpreter


class _Recorder:
    """Replays by running again, as a graph would over the same memory."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, forward: Callable[[], Outputs], count: int) -> Callable[[], Outputs]:
        self.recorded += 1
        forward()

        def replay() -> Outputs:
            self.replayed += 1
            return forward()

        return replay


def _compare(plain: Run, fixed: Run, requests: int = 5) -> None:
    for run in (plain, fixed):
        for n in range(requests):
            run.engine.add(greedy(str(n), prompt_of(n, 3 + 8 * n), 5 + 4 * n))
            run.step()
        run.finish()
    for key, tokens in plain.tokens.items():
        assert fixed.tokens[key] == tokens
        got, expected = torch.stack(fixed.logits[key]), torch.stack(plain.logits[key])
        assert (got - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_fixed_shapes_give_the_same(tmp_path: Path, family: str) -> None:
    model = load_model(save_family(tmp_path, family), EngineConfig())
    recorder = _Recorder()
    plain, fixed = Run.of(model), Run.of(model)
    fixed.engine._runner = Runner(model, fixed.engine._kv, recorder)
    fixed._record()
    # What nobody wrote must not count, whatever it holds.
    for pool in (*fixed.engine._kv.keys, *fixed.engine._kv.values):
        pool[: fixed.engine._kv.scratch_slot] = float("nan")
    _compare(plain, fixed)
    assert 2 < recorder.recorded < recorder.replayed / 2


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_our_gpu_kernels_give_the_same(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole model with the kernels that a GPU gets, interpreted: whole steps and recorded."""
    need_interpreter()
    from llm_node.engine import attention_triton

    model = load_model(save_family(tmp_path, family), EngineConfig())
    recorder = _Recorder()
    plain, fixed = Run.of(model), Run.of(model)
    ours = Kernels(attention_triton.attend, attention_triton.attend, table_blocks=32)
    monkeypatch.setattr("llm_node.engine.runner.kernels_for", lambda *_: ours)
    fixed.engine._runner = Runner(model, fixed.engine._kv, recorder)
    with torch.inference_mode():
        fixed.engine._runner.warm_up(5)
    assert recorder.recorded == 4  # of 1, 2, 4 and 8 sequences
    fixed._record()
    _compare(plain, fixed, requests=3)
    # However long they are.
    assert recorder.recorded == 4 < recorder.replayed


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_compiled_step_gives_the_same(
    tmp_path: Path,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Traced whole, without a break, for every shape; run by torch's own kernels here."""
    for module in ("load", "kernels"):  # a GPU has none of the compiled CPU kernels
        monkeypatch.setattr(f"llm_node.engine.{module}.native", lambda: None)
    monkeypatch.setattr("llm_node.engine.kv.native_for", lambda *_: None)
    model = load_model(save_family(tmp_path, family), EngineConfig())
    recorder, seen = _Recorder(), []

    def record(forward: Callable[[], Outputs], count: int) -> Callable[[], Outputs]:
        seen.append(forward)
        return recorder(forward, count)

    plain, fixed = Run.of(model), Run.of(model)
    fixed.engine._runner = Runner(model, fixed.engine._kv, compiled(record, "eager"))
    fixed._record()
    _compare(plain, fixed, requests=2)
    assert len(seen) >= 2
    assert "not compiled" not in caplog.text


def test_a_step_that_cannot_be_compiled_is_recorded_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = (torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 2, dtype=torch.int64))

    def forward() -> Outputs:
        torch._dynamo.graph_break()
        return outputs

    seen = []

    def record(given: Callable[[], Outputs], count: int) -> Callable[[], Outputs]:
        seen.append(given)
        return given

    assert compiled(record)(forward, 1)() is outputs
    assert seen == [forward]
    assert "decode steps are not compiled" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("compile_steps", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3"])
def test_cuda_graphs_give_the_same(tmp_path: Path, family: str, compile_steps: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    model = load_model(save_family(tmp_path, family), EngineConfig(device="cuda"))
    fixed = Run.of(model, device="cuda", cuda_graphs=True, compile_steps=compile_steps)
    _compare(Run.of(model, device="cuda"), fixed)
    graphs = fixed.engine._runner._graphs
    assert isinstance(graphs, DecodeGraphs)
    assert len(graphs._recorded) > 2


def test_no_graphs_on_a_cpu() -> None:
    with pytest.raises(InvalidInput, match="no CUDA graphs on a CPU"):
        EngineConfig(cuda_graphs=True)


def test_only_recorded_steps_are_compiled() -> None:
    with pytest.raises(InvalidInput, match="only recorded steps are compiled"):
        EngineConfig(device="cuda", compile_steps=True)


def test_power_of_two() -> None:
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]
