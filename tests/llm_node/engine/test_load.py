from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_node.engine.config import EngineConfig
from llm_node.engine.load import context_of, ids_of, load_model
from llm_node.engine.weights import Weights, has_nan
from ragschema.errors import CorruptData, InvalidInput, RagrigError
from tests.llm_node.checkpoints import save_tiny_bert
from tests.llm_node.engine.families import save_family


@pytest.fixture
def copy(llama_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_dir, tmp_path / "copy"))


def _change_weights(directory: Path, **changes: Any) -> None:
    path = directory / "model.safetensors"
    state = {**load_file(path), **changes}
    save_file({k: v for k, v in state.items() if v is not None}, path)


def _shard(directory: Path) -> tuple[Path, Path]:
    """Cuts the weights into two files with an index."""
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(state)
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    files = tuple(directory / f"model-{i}-of-2.safetensors" for i in (1, 2))
    for path, part in zip(files, parts, strict=True):
        save_file({name: state[name] for name in part}, path)
    index = {n: p.name for p, part in zip(files, parts, strict=True) for n in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return files[0], files[1]


def _error(directory: Path) -> RagrigError:
    with pytest.raises((CorruptData, InvalidInput)) as caught:
        load_model(directory, EngineConfig())
    return caught.value


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(llama_dir: Path, dtype: str) -> None:
    model = load_model(llama_dir, EngineConfig(dtype=dtype))
    assert {p.dtype for p in model.module.parameters()} == {getattr(torch, dtype)}
    assert model.layout.dtype == getattr(torch, dtype)


def test_weights_equal_what_transformers_loads(llama_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    expected = loader.from_pretrained(str(llama_dir), dtype=torch.bfloat16).state_dict()
    found = load_model(llama_dir, EngineConfig(dtype="bfloat16")).module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_are_views_of_the_file(llama_dir: Path) -> None:
    model = load_model(llama_dir, EngineConfig())
    tensors = Weights((llama_dir / "model.safetensors",)).tensors()
    begins = {name: tensor.stored.begin for name, tensor in tensors.items()}
    parameters = dict(model.module.named_parameters())
    assert parameters.keys() == begins.keys()
    assert len({p.data_ptr() - begins[name] for name, p in parameters.items()}) == 1


def test_shards(copy: Path) -> None:
    _shard(copy)
    assert load_model(copy, EngineConfig()).layout.token_bytes == 3 * 2 * 2 * 8 * 4


def test_a_missing_shard_is_named(copy: Path) -> None:
    _, second = _shard(copy)
    second.unlink()
    assert str(second) in _error(copy).message


def test_a_shard_without_a_tensor_of_the_index_is_named(copy: Path) -> None:
    first, _ = _shard(copy)
    state = load_file(first)
    lost = sorted(state)[0]
    del state[lost]
    save_file(state, first)
    error = _error(copy)
    assert isinstance(error, CorruptData)
    assert f"{first} lacks {lost}" in error.message


def test_a_wrong_shape_is_named(copy: Path) -> None:
    _change_weights(copy, **{"model.norm.weight": torch.zeros(7)})
    error = _error(copy)
    assert isinstance(error, CorruptData)
    assert f"{copy / 'model.safetensors'} holds model.norm.weight as [7]" in error.message
    assert "[32]" in error.message


def test_nan_weights_are_named(copy: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(copy / "model.safetensors")[name]
    weight[3, 5] = float("nan")
    _change_weights(copy, **{name: weight})
    error = _error(copy)
    assert isinstance(error, CorruptData)
    assert error.message == f"{copy / 'model.safetensors'} holds NaN in {name}"


def test_opposite_infinities_are_no_nan() -> None:
    assert not has_nan(torch.tensor([float("inf"), float("-inf"), 1.0]))
    assert has_nan(torch.tensor([float("inf"), float("-inf"), float("nan")]))


def test_missing_weights_are_counted(copy: Path) -> None:
    _change_weights(copy, **{"model.norm.weight": None})
    assert "model.safetensors lacks model.norm.weight (1 weights in all)" in _error(copy).message


def test_a_header_that_lies_about_a_size(copy: Path) -> None:
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"shape":[32]', b'"shape":[31]', 1))
    assert str(path) in _error(copy).message


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "pickled weights" in _error(copy).message


def test_models_that_do_not_generate_are_refused(tmp_path: Path) -> None:
    assert _error(save_tiny_bert(tmp_path / "bert")).message


def test_layers_of_a_kind_that_is_not_served(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = ["full_attention", "chunked_attention"]
    (copy / "config.json").write_text(json.dumps(config))
    error = _error(copy)
    assert "chunked_attention" in error.message


def _configure(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_window_that_no_layer_tells(copy: Path) -> None:
    """Such a window would lie in a mask alone, and masks are not made here."""
    _configure(copy, sliding_window=9)
    assert "no layer tells the sliding_window of 9" in _error(copy).message


def test_models_whose_attention_needs_a_mask_of_their_own(tmp_path: Path) -> None:
    error = _error(save_family(tmp_path, "llama", prefix="Doge", num_local_experts=0))
    assert "mask of the model's own" in error.message


def test_models_that_take_no_positions(tmp_path: Path) -> None:
    from transformers import BartConfig, BartForCausalLM

    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    config = BartConfig(vocab_size=50, d_model=16, max_position_embeddings=64, **sizes)
    BartForCausalLM(config).save_pretrained(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "takes no position_ids" in _error(tmp_path).message


@pytest.mark.parametrize(
    ("rotation", "context"),
    [
        ({"rope_type": "default"}, 512),
        ({"rope_type": "dynamic", "factor": 4.0}, 512),
        ({"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 128}, 128),
        ({"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 1024}, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
    ],
)
def test_codes_that_change_for_the_whole_batch_bound_the_context(
    copy: Path, rotation: dict[str, Any], context: int
) -> None:
    _configure(copy, rope_parameters={"rope_theta": 10000.0, **rotation})
    assert load_model(copy, EngineConfig()).context == context


def test_such_codes_are_found_by_type_of_layer() -> None:
    changing = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    text = SimpleNamespace(
        max_position_embeddings=512,
        rope_parameters={"sliding_attention": {"rope_type": "default"}, "full_attention": changing},
    )
    assert context_of(text) == 64


@pytest.mark.parametrize("spaces", range(4))
def test_weights_may_lie_anywhere_in_a_file(llama_dir: Path, copy: Path, spaces: int) -> None:
    expected = load_file(llama_dir / "model.safetensors")
    path = copy / "model.safetensors"
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = data[8:end].rstrip(b" ") + b" " * spaces
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[end:])
    found = load_model(copy, EngineConfig()).module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("weight", None), "lacks model.layers.1.mlp.experts.2.up_proj.weight"),
        (("weight", torch.zeros(3, 32)), "experts.2.up_proj.weight as [3, 32], other experts"),
    ],
)
def test_an_odd_expert_is_named(tmp_path: Path, change: tuple[str, Any], told: str) -> None:
    save_family(tmp_path, "qwen3-moe")
    name = f"model.layers.1.mlp.experts.2.up_proj.{change[0]}"
    assert name in load_file(tmp_path / "model.safetensors")
    _change_weights(tmp_path, **{name: change[1]})
    message = _error(tmp_path).message
    assert str(tmp_path / "model.safetensors") in message
    assert told in message


def test_weights_of_a_kind_that_is_not_served(copy: Path) -> None:
    _change_weights(copy, **{"model.norm.weight": torch.ones(32, dtype=torch.float8_e4m3fn)})
    assert "holds model.norm.weight as F8_E4M3, which is not served" in _error(copy).message


def test_quantised_weights_are_no_floats(copy: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    _change_weights(copy, **{name: torch.ones(48, 32, dtype=torch.int8)})
    message = _error(copy).message
    assert f"{copy / 'model.safetensors'} holds {name} as torch.int8, not as floats" in message


def test_surplus_tensors_are_told(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_model(copy, EngineConfig())
    assert not caplog.records
    _change_weights(copy, **{"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})
    load_model(copy, EngineConfig())
    assert "describes no model.layers.0.self_attn.q_proj.bias (1 such tensors)" in caplog.text


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"data_offsets": [0]}, "is not a safetensors file"),
        ({"data_offsets": ["a", "b"]}, "is not a safetensors file"),
        ({"shape": [-4, -8]}, "describes"),
    ],
)
def test_headers_that_no_writer_makes(copy: Path, entry: dict[str, Any], told: str) -> None:
    path = copy / "model.safetensors"
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    header["model.norm.weight"] |= entry
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data[end:])
    message = _error(copy).message
    assert str(path) in message
    assert told in message


def test_a_context_below_one(copy: Path) -> None:
    _configure(copy, max_position_embeddings=-5)
    assert _error(copy).message


def test_another_gpu_than_there_is(llama_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InvalidInput, match="no CUDA device"):
        load_model(llama_dir, EngineConfig(device="cuda"))


@pytest.mark.parametrize(
    ("value", "ids"),
    [(None, []), (3, [3]), ([3, 4], [3, 4]), ([1, None], [1]), ({}, []), (-1, []), ("x", [])],
)
def test_ids_of(value: Any, ids: list[int]) -> None:
    assert ids_of(value) == ids


MEASURE = """
import sys
import torch, transformers
torch.set_num_threads(1)
from pathlib import Path
from llm_node.engine.config import EngineConfig
from llm_node.engine.load import load_model
# Libraries set themselves up in the first pass of a dtype.
load_model(Path(sys.argv[1]), EngineConfig(dtype=sys.argv[3]))
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = resident("VmRSS")
model = load_model(Path(sys.argv[2]), EngineConfig(dtype=sys.argv[3]))
weights = sum(p.numel() * p.element_size() for p in model.module.parameters())
print(weights, resident("VmHWM") - before)
"""


LARGE = {
    "llama": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10},
    "mixtral": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 24},
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", "float32"), ("llama", "bfloat16"), ("mixtral", "float32")]
)
def test_peak_memory_is_that_of_the_weights(tmp_path: Path, family: str, dtype: str) -> None:
    """As the file has them, converted one by one, and merged into larger ones."""
    small = save_family(tmp_path / "small", family)
    large = save_family(tmp_path / "large", family, **LARGE[family])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large), dtype],
        capture_output=True, text=True, timeout=120, check=False,
        # The allocator keeps freed pieces below 32 MiB; those of real models are larger.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights, peak = (int(x) for x in done.stdout.split()[-2:])
    print(f"{weights} bytes of weights, {peak} more at the peak: {peak / weights:.3f}")
    assert weights > 50_000_000
    assert 0.9 * weights < peak <= 1.15 * weights
