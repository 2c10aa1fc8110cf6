"""How good are the demo's answers? Two figures over the demo's collection.

``recall_at_10``: share of the ten truly nearest chunks that the IVF-PQ index
with refinement finds, with the settings the collection carries, through the
retrieval backend ``fpga`` on its emulated device. Truth is an exact search over
float32 vectors, embedded again from the chunks' texts. The queries are the
questions below and sentences of the corpus; neither is a chunk of it.

``hit_at_5``: share of hand-written questions with a chunk of a module that
answers them among the first five.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.appliance import Bench, run_bench
from bench.common import emit, machine, note, options, typed_failures
from coordinator.collections.snapshot import Snapshot
from coordinator.ingest.vectors import passage_text
from coordinator.nodes.clients import LlmClient
from coordinator.supervisor.commands import Programs
from coordinator.types import Chunk
from ragschema.types import F32, I64, CallContext, EmbedPurpose, SearchResult
from retrieval_node.local import LocalSearcher

QUESTIONS = Path(__file__).parent / "data" / "demo_questions.json"
_FEWEST_QUESTIONS = 40
_SEED = 20261120
_BATCH = 32
_CALL_S = 300.0
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
#: Distances this near are the same: stored vectors have 11 significant bits.
_TIE = 1e-6


@dataclass(frozen=True)
class Question:
    """``modules``: any of them answers it."""

    text: str
    modules: frozenset[str]


def load_questions(path: Path = QUESTIONS) -> tuple[Question, ...]:
    """The hand-written questions."""
    raw = json.loads(path.read_text(encoding="utf-8"))["questions"]
    return tuple(Question(q["question"], frozenset(q["modules"])) for q in raw)


def answerable(questions: Sequence[Question], modules: frozenset[str]) -> tuple[Question, ...]:
    """Those whose answer is part of this machine's corpus."""
    kept = tuple(q for q in questions if q.modules & modules)
    assert len(kept) >= _FEWEST_QUESTIONS, f"the corpus answers only {len(kept)} questions"
    return kept


def sample_sentences(chunks: Sequence[Chunk], count: int) -> list[str]:
    """Sentences of 5 to 30 words, each from another chunk, the same on every run."""
    draw = random.Random(_SEED)
    order = list(chunks)
    draw.shuffle(order)
    found: list[str] = []
    for chunk in order:
        whole = [s.strip() for s in _SENTENCE.split(chunk.text)[1:-1]]
        fitting = [s for s in whole if 5 <= len(s.split()) <= 30 and s[0].isalpha()]
        if fitting:
            found.append(" ".join(draw.choice(fitting).split()))
        if len(found) == count:
            break
    return found


async def embed(client: LlmClient, texts: Sequence[str], purpose: EmbedPurpose) -> F32:
    """float32 [len(texts), dim], unit length."""
    parts = []
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        reply = await client.embed(batch, purpose, CallContext.start(_CALL_S))
        parts.append(reply.vectors)
    return np.concatenate(parts)


def exact_distances(queries: F32, passages: F32) -> F32:
    """Minus the inner product, float32 [queries, passages]."""
    distances: F32 = np.negative(queries @ passages.T)
    return distances


def recall(found: SearchResult, truth: F32, rows: I64, k: int) -> float:
    """Share of the k nearest that was found; a tie with the k-th counts.

    Args:
        truth: exact distances, float32 [queries, passages].
        rows: row id of each passage, ascending.
    """
    border = np.partition(truth, k - 1, axis=1)[:, k - 1] + _TIE
    hits = 0
    for query in range(len(truth)):
        ids = found.row_ids[query, : found.counts[query]]
        hits += int((truth[query, np.searchsorted(rows, ids)] <= border[query]).sum())
    return hits / (k * len(truth))


def hit_rate(questions: Sequence[Question], ranked: Sequence[Sequence[str]]) -> float:
    """Share of questions with a right module in their ranked ones; names the others."""
    missed = [
        (q.text, modules)
        for q, modules in zip(questions, ranked, strict=True)
        if not q.modules & set(modules)
    ]
    for text, modules in missed:
        note(f"missed: {text}  found: {', '.join(dict.fromkeys(modules))}")
    return 1 - len(missed) / len(questions)


async def passages_of(snapshot: Snapshot, client: LlmClient, max_tokens: int | None) -> F32:
    """Every live chunk's vector, embedded as at ingestion."""
    texts = [
        passage_text(document, chunk, max_tokens)
        for segment in snapshot.segments
        for document in snapshot.live_documents(segment)
        for chunk in segment.texts.chunks(
            range(document.first_row, document.first_row + document.chunks)
        )
    ]
    return await embed(client, texts, EmbedPurpose.PASSAGE)


async def measure(bench: Bench, sentences: int) -> dict[str, Any]:
    """Both figures, and the settings they hold for."""
    client = LlmClient("bench", bench.llm_address)
    snapshot = bench.snapshot()
    try:
        return await _measure(bench, snapshot, client, sentences)
    finally:
        snapshot.close()
        await client.close()


async def _measure(
    bench: Bench, snapshot: Snapshot, client: LlmClient, sentences: int
) -> dict[str, Any]:
    rows = np.array(_live_rows(snapshot), dtype=np.int64)
    chunks = [chunk for chunk in snapshot.chunks(rows.tolist()) if chunk is not None]
    modules = frozenset(str(chunk.metadata["module"]) for chunk in chunks)
    questions = answerable(load_questions(), modules)
    texts = [q.text for q in questions] + sample_sentences(chunks, sentences)
    note(f"embedding {len(chunks)} passages and {len(texts)} queries")
    status = await client.status(CallContext.start(_CALL_S))
    most = next((m.max_input_tokens for m in status.models if m.dim), 0)
    passages = await passages_of(snapshot, client, most or None)
    queries = await embed(client, texts, EmbedPurpose.QUERY)
    searcher = LocalSearcher(bench.directory, "fpga")
    found = await asyncio.to_thread(lambda: searcher.search(searcher.batch(queries, 10)))
    searcher.close()
    module_of = {chunk.row_id: str(chunk.metadata["module"]) for chunk in chunks}
    ranked = [
        [module_of[int(row)] for row in found.row_ids[i, : min(5, found.counts[i])]]
        for i in range(len(questions))
    ]
    index = searcher.manifest.index
    assert index is not None, "checked at ingestion"
    truth = exact_distances(queries, passages)
    return {
        "recall_at_10": round(recall(found, truth, rows, 10), 4),
        "hit_at_5": round(hit_rate(questions, ranked), 4),
        "recall_at_10_questions": round(recall_of_first(found, truth, rows, len(questions)), 4),
        "questions": len(questions),
        "queries": len(texts),
        "chunks": len(chunks),
        "nlist": index.nlist,
        "nprobe": index.nprobe,
        "m": index.m,
        "refine_factor": index.refine_factor,
        "backend": "fpga/emulator",
    }


def recall_of_first(found: SearchResult, truth: F32, rows: I64, count: int) -> float:
    """Recall over the first queries alone: the hand-written questions."""
    part = SearchResult(
        found.distances[:count], found.row_ids[:count], found.counts[:count], found.rows_covered
    )
    return recall(part, truth[:count], rows, 10)


def _live_rows(snapshot: Snapshot) -> list[int]:
    return [row for row in range(snapshot.manifest.next_row_id) if snapshot.is_live(row)]


def main() -> None:
    parser: argparse.ArgumentParser = options(__doc__ or "")
    parser.add_argument("--sentences", type=int, default=400, help="queries beside the questions")
    given = parser.parse_args()
    result: dict[str, Any] = {}
    started_s = time.monotonic()

    async def body(bench: Bench) -> None:
        result.update(await measure(bench, given.sentences))

    run_bench(given.data_dir, body, Programs())
    result["seconds"] = round(time.monotonic() - started_s, 1)
    result["machine"] = machine()
    emit(result, given)


if __name__ == "__main__":
    with typed_failures():
        main()
