"""The rig file: what is accepted, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ragschema.errors import InvalidInput, NotFound
from ragschema.rig import RigConfig, load_rig, parse_rig

BASE = Path("/srv/ragrig")

FULL = """
version: 1
name: lab
data_dir: data
replicas: 2
coordinator:
  host: 127.0.0.1
  port: 8099
  stages:
    embed: {max_batch: 8, max_wait_ms: 1.5, max_queue: 32, max_concurrent: 1}
    retrieve: {max_batch: 16, max_wait_ms: 0}
  limits: {max_inflight: 64, max_k: 50}
llm_nodes:
  - {name: embedder, roles: [embed], threads: 2}
  - {name: writer, roles: [generate], generator: "hf:/models/tiny", max_running: 2}
  - {name: far, roles: [generate], generator: "openai:http://10.0.0.9:8000/v1#m", api_key_env: KEY}
retrieval_nodes:
  - {name: a, backend: faiss}
  - {name: b, address: "10.0.0.2:7000"}
  - {name: c, threads: 4, port: 7001}
  - {name: d}
"""


def test_an_empty_file_is_the_default_rig() -> None:
    rig = parse_rig("", "rig.yaml", BASE)
    assert [n.name for n in rig.retrieval_nodes] == ["ret-0", "ret-1"]
    assert rig.llm_nodes[0].roles == ("embed", "generate")
    assert rig.coordinator.host == "127.0.0.1"
    assert rig.num_shards == 2


def test_every_key_is_read() -> None:
    rig = parse_rig(FULL, "rig.yaml", BASE)
    assert rig.data_dir == "/srv/ragrig/data"
    assert rig.coordinator.stages.embed.max_wait_ms == 1.5
    assert rig.coordinator.stages.retrieve.max_queue == 512  # untouched defaults stay
    assert rig.coordinator.limits.max_k == 50
    assert rig.llm_nodes[1].generator == "hf:/models/tiny"
    assert rig.retrieval_nodes[1].address == "10.0.0.2:7000"
    assert rig.num_shards == 2


def test_a_simd_node_is_read() -> None:
    text = (
        "retrieval_nodes: [{name: a, backend: simd, mode: contract16, cpus: [0, 2], numa_node: 0,"
        " memory: huge, coalesce: {max_batch: 8}}, {name: b, backend: simd}]"
    )
    full, bare = parse_rig(text, "rig.yaml", BASE).retrieval_nodes
    assert (full.mode, full.cpus, full.numa_node, full.memory) == ("contract16", (0, 2), 0, "huge")
    assert (full.coalesce.max_batch, full.coalesce.max_wait_us) == (8, 0)
    assert (bare.mode, bare.cpus, bare.numa_node, bare.memory) == (None, (), None, "map")


def test_reranking_and_the_engine_s_sizes_are_read() -> None:
    rig = parse_rig(
        """
coordinator: {rerank: {candidates: 40}}
llm_nodes:
- {name: a, engine: {step_tokens: 64, dtype: bfloat16, prefix_reuse: false}}
- {name: b, roles: [rerank], reranker: models/cross}
""",
        "rig.yaml",
        BASE,
    )
    assert rig.coordinator.rerank is not None
    assert rig.coordinator.rerank.candidates == 40
    assert rig.needed_roles == ("embed", "generate", "rerank")
    given = {"dtype": "bfloat16", "step_tokens": 64, "prefix_reuse": False}
    assert rig.llm_nodes[0].engine.given() == given
    assert rig.llm_nodes[1].reranker == "models/cross"
    assert parse_rig("", "rig.yaml", BASE).llm_nodes[0].engine.given() == {}


def test_an_absolute_data_dir_stays() -> None:
    assert parse_rig("data_dir: /var/lib/r", "rig.yaml", BASE).data_dir == "/var/lib/r"


def test_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        parse_rig("", "rig.yaml", BASE).replicas = 3  # type: ignore[misc]


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 7])
def test_every_shard_has_exactly_replicas_nodes(replicas: int, num_shards: int) -> None:
    nodes = [{"name": f"r{i}"} for i in range(4)]
    text = yaml.safe_dump({"replicas": replicas, "retrieval_nodes": nodes})
    rig = parse_rig(text, "rig.yaml", BASE)
    holders = [s for i in range(4) for s in rig.shards_of(i, num_shards)]
    assert {holders.count(s) for s in range(num_shards)} == {replicas}


BAD: list[tuple[str, str]] = [
    ("version: 2", "version"),
    ("version: '1'", "version"),
    ("name: Lab", "name"),
    ("name: ''", "name"),
    ("name: a/b", "name"),
    ("data_dir: 7", "data_dir"),
    ("replicas: 0", "replicas"),
    ("replicas: 3", "replicas"),
    ("replicas: true", "replicas"),
    ("replica: 1", "replica"),
    ("coordinator: {port: 70000}", "coordinator.port"),
    ("coordinator: {port: -1}", "coordinator.port"),
    ("coordinator: {port: '8080'}", "coordinator.port"),
    ("coordinator: {prt: 8080}", "coordinator.prt"),
    ("coordinator: []", "coordinator"),
    ("coordinator: {limits: {max_k: 0}}", "coordinator.limits.max_k"),
    ("coordinator: {limits: {max_k: 2000}}", "coordinator.limits.max_k"),
    ("coordinator: {limits: {max_body_bytes: 1}}", "coordinator.limits.max_body_bytes"),
    ("coordinator: {limits: {max_inflight: 1.5}}", "coordinator.limits.max_inflight"),
    ("coordinator: {stages: {embed: {max_batch: 0}}}", "coordinator.stages.embed.max_batch"),
    ("coordinator: {stages: {embed: {max_wait_ms: -1}}}", "coordinator.stages.embed.max_wait_ms"),
    ("coordinator: {stages: {embed: {max_wait_ms: .nan}}}", "coordinator.stages.embed.max_wait_ms"),
    ("coordinator: {stages: {embed: {max_wait_ms: .inf}}}", "coordinator.stages.embed.max_wait_ms"),
    ("coordinator: {stages: {dance: {}}}", "coordinator.stages.dance"),
    ("llm_nodes: []", "llm_nodes"),
    ("llm_nodes: [{}]", "llm_nodes.0.name"),
    ("llm_nodes: [{name: a, roles: []}]", "llm_nodes.0.roles"),
    ("llm_nodes: [{name: a, roles: [speak]}]", "llm_nodes.0.roles.0"),
    ("llm_nodes: [{name: a, roles: [embed]}]", "llm_nodes.roles"),
    ("llm_nodes: [{name: a, generator: gpt}]", "llm_nodes.0.generator"),
    ("llm_nodes: [{name: a, generator: 'openai:ftp://x'}]", "llm_nodes.0.generator"),
    ("llm_nodes: [{name: a, threads: 0}]", "llm_nodes.0.threads"),
    ("llm_nodes: [{name: a}, {name: a}]", "name"),
    ("llm_nodes: [{name: ret-0}]", "name"),
    ("retrieval_nodes: []", "retrieval_nodes"),
    ("retrieval_nodes: [{name: a, backend: gpu}]", "retrieval_nodes.0.backend"),
    ("retrieval_nodes: [{name: a, device: u280}]", "retrieval_nodes.0.device"),
    ("retrieval_nodes: [{name: a, device: 'pynq:'}]", "retrieval_nodes.0.device"),
    ("retrieval_nodes: [{name: a, max_waiting: 0}]", "retrieval_nodes.0.max_waiting"),
    ("retrieval_nodes: [{name: a, backend: simd, mode: slow}]", "retrieval_nodes.0.mode"),
    ("retrieval_nodes: [{name: a, backend: fpga, tables: both}]", "retrieval_nodes.0.tables"),
    ("retrieval_nodes: [{name: a, backend: faiss, tables: card}]", "retrieval_nodes.0.tables"),
    ("retrieval_nodes: [{name: a, backend: simd, tables: card}]", "retrieval_nodes.0.tables"),
    ("retrieval_nodes: [{name: a}, {name: b, mode: fast}]", "retrieval_nodes.1.mode"),
    ("retrieval_nodes: [{name: a, backend: simd, cpus: [0, 1, 0]}]", "retrieval_nodes.0.cpus"),
    ("retrieval_nodes: [{name: a, cpus: [0]}]", "retrieval_nodes.0.cpus"),
    ("retrieval_nodes: [{name: a, cpus: [-1]}]", "retrieval_nodes.0.cpus.0"),
    ("retrieval_nodes: [{name: a, cpus: 0-3}]", "retrieval_nodes.0.cpus"),
    ("retrieval_nodes: [{name: a, numa_node: -1}]", "retrieval_nodes.0.numa_node"),
    ("retrieval_nodes: [{name: a, memory: disk}]", "retrieval_nodes.0.memory"),
    (
        "retrieval_nodes: [{name: a, coalesce: {max_batch: 0}}]",
        "retrieval_nodes.0.coalesce.max_batch",
    ),
    (
        "retrieval_nodes: [{name: a, coalesce: {max_wait_ms: 1}}]",
        "retrieval_nodes.0.coalesce.max_wait_ms",
    ),
    ("retrieval_nodes: {name: a}", "retrieval_nodes"),
    ("llm_nodes: [{name: a}, {name: b, roles: [rerank]}]", "llm_nodes.1.reranker"),
    ("coordinator: {rerank: {}}", "llm_nodes.roles"),
    ("coordinator: {rewrite: {}}", "llm_nodes.roles"),
    ("coordinator: {rewrite: {max_queries: 0}}", "coordinator.rewrite.max_queries"),
    ("llm_nodes: [{name: a, roles: [embed, generate, rewrite]}]", "llm_nodes.0.generator"),
    ("coordinator: {rerank: {candidates: 0}}", "coordinator.rerank.candidates"),
    (
        "coordinator: {rerank: {candidates: 200}}\n"
        "llm_nodes: [{name: a, roles: [embed, generate, rerank], reranker: m}]",
        "coordinator.rerank.candidates",
    ),
    ("llm_nodes: [{name: a, engine: {dtype: int8}}]", "llm_nodes.0.engine.dtype"),
    ("llm_nodes: [{name: a, engine: {block_tokens: 0}}]", "llm_nodes.0.engine.block_tokens"),
    ("llm_nodes: [{name: a, shares: {embed: 0}}]", "llm_nodes.0.shares.embed"),
    ("llm_nodes: [{name: a, shares: {generate: -2}}]", "llm_nodes.0.shares.generate"),
    ("llm_nodes: [{name: a, shares: {generat: 2}}]", "llm_nodes.0.shares.generat"),
    ("llm_nodes: [{name: a, shares: {rerank: 2}}]", "llm_nodes.0.shares.rerank"),
    ("- a\n- b", "config"),
    ("just words", "config"),
    ("a: [", "config"),
    ("a: !!python/object:os.system {}", "config"),
    ("a: \x00", "config"),
    ("a: &x [*x]", "config"),
    ("2020-01-01: x", "config"),
    ("? {a: 1}\n: x", "config"),
    ("[" * 5000, "config"),
]


@pytest.mark.parametrize(("text", "field"), BAD, ids=[t[:50] for t, _ in BAD])
def test_a_mistake_names_the_field_and_the_fix(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rig(text, "rig.yaml", BASE)
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert caught.value.hint
    assert "rig.yaml" in caught.value.message


def test_a_misspelt_key_gets_a_suggestion() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rig("retrieval_node: []", "rig.yaml", BASE)
    assert caught.value.hint == "did you mean retrieval_nodes?"


def test_aliases_that_expand_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(InvalidInput):
        parse_rig("\n".join(lines), "rig.yaml", BASE)


def test_a_missing_file_points_to_the_examples(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load_rig(tmp_path / "none.yaml")
    assert caught.value.hint
    assert "none.yaml" in caught.value.message


def test_a_folder_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x9f")
    for path in (tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(InvalidInput) as caught:
            load_rig(path)
        assert caught.value.field == "config"


def test_data_dir_is_relative_to_the_rig_file(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("data_dir: here")
    assert load_rig(tmp_path / "rig.yaml").data_dir == str(tmp_path.resolve() / "here")


Leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
Tree = st.recursive(Leaf, lambda t: st.lists(t, max_size=3), max_leaves=8)
KEYS = st.sampled_from(
    ["version", "name", "data_dir", "replicas", "coordinator", "llm_nodes", "retrieval_nodes", "x"]
)


@given(st.dictionaries(KEYS, Tree, max_size=4))
def test_any_other_value_is_a_rig_or_a_typed_refusal(raw: dict[str, object]) -> None:
    try:
        rig = parse_rig(yaml.safe_dump(raw), "rig.yaml", BASE)
    except InvalidInput as error:
        assert error.field
    else:
        assert isinstance(rig, RigConfig)


@given(st.text(max_size=60))
def test_any_text_is_a_rig_or_a_typed_refusal(text: str) -> None:
    try:
        parse_rig(text, "rig.yaml", BASE)
    except InvalidInput as error:
        assert error.field
