"""A datastore from a corpus, then answers with it: real nodes, and numpy to compare with."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.cli.datastore import run_knnlm
from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import CollectionStore
from coordinator.datastore.build import BuiltDatastore, DatastoreRequest, build_datastore
from coordinator.datastore.rows import next_token_of
from coordinator.datastore.windows import cut
from coordinator.runtime import Runtime
from coordinator.types import Chunk, DoneEvent, Hit, QuerySpec, SearchSpec
from ragschema.errors import Conflict, IncompatibleRequest, InvalidInput, Unavailable
from ragschema.generation import GenerationConfig, KnnConfig
from ragschema.rig import CoordinatorConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import GenerateSpec, Metric, Sampling
from tests.coordinator.making import (
    DIM,
    FAST,
    FOLLOW,
    Content,
    context,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer
from tests.retrieval_node.process import NodeProcess

TEXT = "The quick brown fox jumps over the lazy dog, and def merge(a, b) returns a sorted list. "
WINDOW = 100
KNN = KnnConfig(collection="states", k=5, lam=0.6, temperature=20.0)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT * 3)
    return path


async def build(tmp_path: Path, corpus: Path, writer: str) -> BuiltDatastore:
    request = DatastoreRequest(tmp_path, "states", (corpus,), writer, 1, WINDOW)
    return await build_datastore(request, lambda *_: None)


class Model:
    """The same checkpoint in transformers, and its own datastore."""

    def __init__(self, directory: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from llm_node.generate.hf import load_chat_tokenizer

        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.tokenizer = load_chat_tokenizer(directory)

    def run(self, ids: list[int]) -> tuple[Any, Any]:
        """States float32 [n, hidden], and the last position's logits in float64."""
        import torch

        with torch.no_grad():
            out = self._model(torch.tensor([ids]), output_hidden_states=True)
        return out.hidden_states[-1][0].numpy(), out.logits[0, -1].double().numpy()

    def datastore(self, text: str) -> tuple[Any, Any]:
        states, tokens = [], []
        for window in cut(text, WINDOW):
            ids = self.tokenizer(window)["input_ids"]
            states.append(self.run(ids)[0][:-1])
            tokens += ids[1:]
        return np.concatenate(states), np.array(tokens)

    def answer(self, spec: GenerateSpec, store: tuple[Any, Any], tokens: int) -> tuple[str, int]:
        """Greedy tokens of the mixture, and how many the model alone would not choose."""
        from llm_node.generate.prompt import plain_prompt

        keys, values = store
        ids = self.tokenizer(plain_prompt(spec.messages))["input_ids"]
        made, changed = [], 0
        for _ in range(tokens):
            states, logits = self.run(ids)
            far = ((keys - states[-1]) ** 2).sum(axis=1)
            near = np.lexsort((np.arange(len(far)), far))[: KNN.k]
            weights = np.exp(-(far[near] - far[near].min()) / KNN.temperature)
            p_knn = np.zeros_like(logits)
            np.add.at(p_knn, values[near], weights / weights.sum())
            p_lm = np.exp(logits - logits.max())
            p_lm /= p_lm.sum()
            best = int((KNN.lam * p_knn + (1 - KNN.lam) * p_lm).argmax())
            changed += best != int(p_lm.argmax())
            ids.append(best)
            made.append(best)
        return self.tokenizer.decode(made, skip_special_tokens=True), changed


async def test_a_datastore_holds_every_state_and_the_token_behind_it(
    tmp_path: Path, corpus: Path, writer: str, llama: Path
) -> None:
    built = await build(tmp_path, corpus, writer)
    keys, values = Model(llama).datastore(TEXT * 3)
    manifest = built.manifest
    assert (manifest.live_rows, manifest.dim, manifest.metric) == (len(keys), 32, Metric.L2)
    assert manifest.embedder is not None
    assert manifest.embedder.name.startswith("hf:")
    assert built.notes == ()
    snapshot = Snapshot.open(CollectionStore(tmp_path).directory("states"))
    try:
        chunks = snapshot.chunks(range(len(keys)))
        assert [next_token_of(Hit(c, 0.0)) for c in chunks if c] == values.tolist()
    finally:
        snapshot.close()
    assert not list((tmp_path / "collections" / "states").glob("staging"))
    with pytest.raises(Conflict, match="exists already"):
        await build(tmp_path, corpus, writer)


async def test_answers_follow_the_mixture(
    tmp_path: Path, corpus: Path, writer: str, llama: Path
) -> None:
    """Coordinator, LLM node and retrieval node as processes; numpy gives every token."""
    await build(tmp_path, corpus, writer)
    write_collection(tmp_path, "notes", Content(unit_vectors(20), num_shards=1))
    embedder = FakeLlm("emb", DIM)
    embedder.roles = ("embed",)
    embedder.reset()
    (tmp_path / "ret").mkdir()
    async with FakeServer(embedder) as one:
        with NodeProcess(tmp_path, tmp_path / "ret", "--backend", "simd") as retrieval:
            runtime = Runtime(_rig(tmp_path, one.address, writer, retrieval.address), FAST, FOLLOW)
            await runtime.open()
            try:
                await until(lambda: all(h.ready for h in runtime.pool.health()))
                done = await _ask(runtime)
                prompt = await runtime.pipeline._prompt(_query(), _hits_of(done), context())
                model = Model(llama)
                store = model.datastore(TEXT * 3)
                expected, changed = model.answer(prompt.spec, store, 15)
                assert done.answer == expected
                assert changed, "the neighbours never mattered"
                with pytest.raises(IncompatibleRequest, match="another model"):
                    runtime.pool.generator("another")
            finally:
                await runtime.stop()


def _rig(data: Path, embedder: str, writer: str, retrieval: str) -> RigConfig:
    return RigConfig(
        data_dir=str(data),
        coordinator=CoordinatorConfig(generation=GenerationConfig(kind="knn", knn=KNN)),
        llm_nodes=(
            LlmNodeConfig(name="emb", roles=("embed",), address=embedder),
            LlmNodeConfig(name="gen", roles=("generate",), address=writer),
        ),
        retrieval_nodes=(RetrievalNodeConfig(name="ret", backend="simd", address=retrieval),),
    )


def _query() -> QuerySpec:
    search = SearchSpec("notes", 2, text="where is the fox?")
    return QuerySpec(search, "where is the fox?", Sampling(max_tokens=15))


async def _ask(runtime: Runtime) -> DoneEvent:
    async with aclosing(runtime.pipeline.query(_query(), context(60))) as events:
        told = [event async for event in events]
    assert isinstance(told[-1], DoneEvent)
    return told[-1]


def _hits_of(done: DoneEvent) -> tuple[Hit, ...]:
    return tuple(citation.hit for citation in done.citations)


async def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    tmp_path: Path, writer: str
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("x")
    with pytest.raises(InvalidInput, match="no text"):
        await build(tmp_path, empty, writer)
    assert not (tmp_path / "collections" / "states").exists()
    async with FakeServer(FakeLlm("llm", DIM)) as fake:
        with pytest.raises(IncompatibleRequest, match="no model with states"):
            await build(tmp_path, empty, fake.address)
    with pytest.raises(Unavailable, match="--llm"):
        run_knnlm(RigConfig(data_dir=str(tmp_path)), (empty,), "states", None, WINDOW)
    ordinary = Chunk(3, "c", "d", "t", 0, 4, "text", (), 1, {})
    with pytest.raises(IncompatibleRequest, match="row 3"):
        next_token_of(Hit(ordinary, 0.0))


def test_the_command_makes_and_reports_it(
    tmp_path: Path, corpus: Path, writer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from coordinator.cli.app import run

    command = ["index", "knnlm", str(corpus), "--llm", writer, "--data-dir", str(tmp_path)]
    assert run(command) == 0
    assert "states of 32 numbers in corpus" in capsys.readouterr().out
