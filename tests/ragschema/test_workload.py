"""RAGSchema files: the shipped ones load, and every mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.models import find_model
from ragschema.planner.reproduce.rago import case1, case2, case4
from ragschema.userfile import keys_at
from ragschema.workload import RagSchema, bytes_of, json_schema, load_schema, parse_schema

SCHEMAS = Path(__file__).resolve().parents[2] / "examples" / "schemas"

FULL = """
version: 1
name: full
generator: {model: llama-3-8b, weights: int8, kv: bf16}
lengths: {question: 32, prompt: 512, output: 256}
database: {vectors: 1.0e+9, bytes_per_vector: 96, index: tree, scan_share: 0.001, fanout: 4096}
retrieval: {per_sequence: 2, queries: 3}
encoder: {parameters: 1.2e+8, context: 1000, chunk: 128, weights: bf16}
rewriter: {model: llama-3-1b, weights: int8, kv: bf16, input: 32, output: 32}
reranker: {parameters: 1.2e+8, passages: 16, passage: 100, weights: int8}
cache: {document_kv_hit: 0.25}
objectives: {ttft_s: 1.0, ttft_p99_s: 2.0, load: 0.7, tpot_s: 0.05, qps: 100}
"""


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_schema_loads(path: Path) -> None:
    schema = load_schema(path)
    assert schema.name.startswith(path.stem)
    find_model(schema.generator.model)


def test_the_shipped_cases_are_those_that_reproduce_the_paper() -> None:
    assert load_schema(SCHEMAS / "case1.yaml").database == case1("llama-3-8b").database
    second = load_schema(SCHEMAS / "case2.yaml")
    wanted = case2("llama-3-70b", 1_000_000)
    assert (second.database, second.encoder) == (wanted.database, wanted.encoder)
    fourth, paper = load_schema(SCHEMAS / "case4.yaml"), case4("llama-3-8b")
    assert (fourth.rewriter, fourth.reranker) == (paper.rewriter, paper.reranker)


def test_every_key_is_taken() -> None:
    schema = parse_schema(FULL, "full.yaml")
    assert schema.retrieval.queries == 3
    assert schema.objectives.qps == 100.0
    assert bytes_of(schema.generator.kv) == 2.0


MUTATIONS = [
    ("version: 1", "version: 2", "version"),
    ("version: 1", "version: one", "version"),
    ("version: 1\n", "", "version"),
    ("name: full", "name: Full Name", "name"),
    ("name: full", "name: 7", "name"),
    ("generator:", "generater:", "generater"),
    ("{model: llama-3-8b, weights", "{modell: llama-3-8b, weights", "generator.modell"),
    ("model: llama-3-8b, weights: int8", "weights: int8", "generator.model"),
    ("weights: int8, kv: bf16}\nlengths", "weights: int3, kv: bf16}\nlengths", "generator.weights"),
    ("kv: bf16}\nlengths", "kv: 2}\nlengths", "generator.kv"),
    ("question: 32", "question: 0", "lengths.question"),
    ("question: 32", "question: -4", "lengths.question"),
    ("question: 32", "question: 3.5", "lengths.question"),
    ("question: 32", "question: true", "lengths.question"),
    ("prompt: 512", "prompt: many", "lengths.prompt"),
    ("prompt: 512", "promt: 512", "lengths.promt"),
    ("output: 256}", "output: 1000000000}", "lengths.output"),
    ("vectors: 1.0e+9", "vectors: 0", "database.vectors"),
    ("vectors: 1.0e+9", "vectors: -1.0", "database.vectors"),
    ("vectors: 1.0e+9", "vectors: .nan", "database.vectors"),
    ("vectors: 1.0e+9", "vectors: .inf", "database.vectors"),
    ("bytes_per_vector: 96", "bytes_per_vector: 0", "database.bytes_per_vector"),
    ("index: tree", "index: hnsw", "database.index"),
    ("scan_share: 0.001", "scan_share: 0", "database.scan_share"),
    ("scan_share: 0.001", "scan_share: 1.5", "database.scan_share"),
    ("scan_share: 0.001", "scan_shares: 0.001", "database.scan_shares"),
    ("fanout: 4096", "fanout: 1", "database.fanout"),
    ("per_sequence: 2", "per_sequence: 0", "retrieval.per_sequence"),
    ("queries: 3", "queries: 5000", "retrieval.queries"),
    ("queries: 3", "query: 3", "retrieval.query"),
    ("parameters: 1.2e+8, context", "parameters: 0, context", "encoder.parameters"),
    ("context: 1000", "context: 0", "encoder.context"),
    ("context: 1000, ", "", "encoder.context"),
    ("chunk: 128", "chunk: 0.5", "encoder.chunk"),
    ("model: llama-3-1b", "model: ../x", "rewriter.model"),
    ("input: 32, output: 32", "input: 32, output: 0", "rewriter.output"),
    ("passages: 16", "passages: 0", "reranker.passages"),
    ("passage: 100", "passage: -1", "reranker.passage"),
    ("reranker: {parameters: 1.2e+8, ", "reranker: {", "reranker.parameters"),
    ("document_kv_hit: 0.25", "document_kv_hit: 1.25", "cache.document_kv_hit"),
    ("document_kv_hit: 0.25", "kv_hit: 0.25", "cache.kv_hit"),
    ("ttft_s: 1.0", "ttft_s: 0", "objectives.ttft_s"),
    ("load: 0.7", "load: 1.2", "objectives.load"),
    ("tpot_s: 0.05", "tpot: 0.05", "objectives.tpot"),
    ("qps: 100", "qps: -100", "objectives.qps"),
    ("qps: 100", "qps: [100]", "objectives.qps"),
    ("objectives: {", "objectives: [", "config"),
    ("version: 1", "version: 1\nversion: 1", "config"),
    ("version: 1", "- 1", "config"),
]


def test_there_are_enough_mutations() -> None:
    assert len(MUTATIONS) >= 40


@pytest.mark.parametrize(("old", "new", "field"), MUTATIONS)
def test_a_mistake_is_named(old: str, new: str, field: str) -> None:
    assert old in FULL
    with pytest.raises(InvalidInput) as caught:
        parse_schema(FULL.replace(old, new, 1), "full.yaml")
    assert caught.value.field == field
    assert caught.value.hint
    assert "full.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("generater", "generator"), ("promt", "prompt"), ("scan_shares", "scan_share")],
)
def test_an_unknown_key_suggests_the_nearest(wrong: str, right: str) -> None:
    text = FULL.replace(f"{right}:", f"{wrong}:", 1)
    with pytest.raises(InvalidInput) as caught:
        parse_schema(text, "full.yaml")
    assert caught.value.hint == f"did you mean {right}?"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("version: 1\nname: x\ngenerator: {model: m}\nretrieval: {per_sequence: 2}", "database"),
        ("version: 1\nname: x\ngenerator: {model: m}\nreranker: {parameters: 1.0}", "database"),
        (
            "version: 1\nname: x\ngenerator: {model: m}\nencoder: {parameters: 1.0, context: 9}",
            "database",
        ),
        ("version: 1\nname: x\ngenerator: {model: m}\ndatabase: {}", "database.vectors"),
        ("", "schema"),
        ("just text", "schema"),
    ],
)
def test_parts_that_need_each_other(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_schema(text, "x.yaml")
    assert caught.value.field == field


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no schema file"):
        load_schema(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot read"):
        load_schema(tmp_path / "bytes.yaml")


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="catalogue") as caught:
        find_model("llama-9")
    assert "llama-3-8b" in (caught.value.hint or "")


def test_editors_get_a_json_schema() -> None:
    published = json_schema()
    json.dumps(published)
    assert set(keys_at(RagSchema, ())) <= set(published["properties"])
    assert keys_at(RagSchema, ("database",))[0] == "vectors"
    assert keys_at(RagSchema, ("nothing",)) == []
