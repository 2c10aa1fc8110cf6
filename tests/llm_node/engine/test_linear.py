"""Linear layers by the compiled kernels stand where torch's stood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from llm_node.engine import kernels
from llm_node.engine.attention_torch import attend
from llm_node.engine.config import EngineConfig
from llm_node.engine.linear import NativeLinear, use_native
from llm_node.engine.load import load_model
from llm_node.native import loader
from tests.llm_node.engine.families import save_family


@pytest.fixture
def module() -> ModuleType:
    found = loader.native()
    if found is None:
        pytest.skip("the extension was not built")
    return found


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine that has no compiler."""
    monkeypatch.setenv(loader.WITHOUT, "1")
    loader.native.cache_clear()
    yield
    monkeypatch.undo()
    loader.native.cache_clear()


def test_results_are_those_of_torch(module: ModuleType) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(48, 33)
    replaced = NativeLinear(linear, module)
    for shape in [(48,), (1, 48), (2, 3, 48), (1, 40, 48)]:
        x = torch.randn(shape)
        with torch.inference_mode():
            assert (replaced(x) - linear(x)).abs().max() < 1e-5
    x = torch.randn(48, 5).T
    assert (replaced(x) - linear(x)).abs().max() < 1e-5


@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("tokens", [1, 5, 8, 9, 40])
def test_bfloat16_is_torchs_up_to_its_rounding(
    module: ModuleType, tokens: int, itself: bool
) -> None:
    """One last place of a bfloat16 at most, whichever multiplies; most are equal."""
    torch.manual_seed(tokens)

    class Machine:
        """A machine that multiplies bfloat16 itself, or does not."""

        linear = staticmethod(module.linear)

        @staticmethod
        def multiplies_halves() -> bool:
            return itself

    made: Any = Machine
    linear = torch.nn.Linear(96, 130).to(torch.bfloat16)
    x = torch.randn(tokens, 96).bfloat16()
    with torch.inference_mode():
        found, expected = NativeLinear(linear, made)(x), linear(x)
        exact = torch.nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    assert found.dtype is torch.bfloat16
    assert (found == expected).float().mean() > 0.95
    assert ((found - expected).abs() <= expected.abs() / 128 + 1e-3).all()
    assert ((found.double() - exact).abs() <= exact.abs() / 256 + 1e-5).all()


def test_weights_in_bfloat16_stay_where_they_are(module: ModuleType) -> None:
    linear = torch.nn.Linear(8, 4).to(torch.bfloat16)
    replaced = NativeLinear(linear, module)
    assert replaced.weight is linear.weight
    with torch.inference_mode():
        before = replaced(torch.ones(1, 8, dtype=torch.bfloat16))
        linear.weight.mul_(2.0)
        linear.bias.mul_(2.0)
        doubled = NativeLinear(linear, module)(torch.ones(1, 8, dtype=torch.bfloat16))
    assert torch.equal(doubled, 2 * before)


def test_parameters_stay_the_same_objects(module: ModuleType) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, bias=False))
    before = dict(model.named_parameters())
    use_native(model, module)
    assert [type(child) for child in model] == [NativeLinear, NativeLinear]
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is before[name] for name in before)


def test_what_the_kernels_cannot_read_stays(module: ModuleType) -> None:
    class Own(torch.nn.Linear):
        pass

    strided = torch.nn.Linear(4, 4)
    strided.weight = torch.nn.Parameter(torch.randn(4, 4).T)
    mixed = torch.nn.Linear(4, 4)
    mixed.weight = torch.nn.Parameter(mixed.weight.detach().bfloat16())
    half = torch.nn.Linear(4, 4).to(torch.float16)
    model = torch.nn.Sequential(half, Own(4, 4), strided, mixed)
    use_native(model, module)
    assert not any(isinstance(child, NativeLinear) for child in model)


def test_a_tied_output_embedding_stays_one_tensor(module: ModuleType, tmp_path: Path) -> None:
    model = load_model(save_family(tmp_path, "llama-tied"), EngineConfig()).module
    head = model.get_output_embeddings()
    assert isinstance(head, NativeLinear)
    assert head.weight is model.get_input_embeddings().weight


def test_without_the_extension_torch_does_all(without_native: None, llama_dir: Path) -> None:
    model = load_model(llama_dir, EngineConfig())
    assert not any(isinstance(child, NativeLinear) for child in model.module.modules())
    assert kernels.kernels_for(model.device, model.layout).attend is attend
