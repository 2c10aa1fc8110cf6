"""A question's way, in order. Start reading here.

    search:  check -> embed -> probe -> retrieve -> merge
    query:   search -> prompt -> generate -> citations

Each stage is a small class in ``coordinator/stages/``. Requests that arrive
together share one embedding call, one probe and one call to each retrieval
node; the two batchers below decide what "together" means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from coordinator.batch import Batched
from coordinator.batcher import Batcher
from coordinator.catalog import Catalog, Live
from coordinator.metrics import Metrics
from coordinator.nodes.clients import Embedded
from coordinator.nodes.pool import NodePool
from coordinator.stages.answer import Answer
from coordinator.stages.check import check_coverage, check_search, list_count, refine_count
from coordinator.stages.embed import EmbedRequest, EmbedStage
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStage
from coordinator.stages.merge import MergeStage, to_hits
from coordinator.stages.probe import ProbeStage
from coordinator.stages.prompt import PromptStage
from coordinator.stages.retrieve import RetrieveRequest, RetrieveStage, stack_vectors
from coordinator.stages.vectors import query_vector
from coordinator.types import (
    Coverage,
    FilterTerm,
    QueryEvent,
    QuerySpec,
    RetrievalEvent,
    SearchOutcome,
    SearchSpec,
    Timings,
    Usage,
)
from ragschema.rig import CoordinatorConfig
from ragschema.types import F32, U8, CallContext, EmbedPurpose


@dataclass(frozen=True, slots=True)
class Found:
    """One request's rows out of a shared retrieval; times are the batch's."""

    distances: list[float]
    row_ids: list[int]
    coverage: Coverage
    probe_s: float
    scan_s: float
    merge_s: float


class Pipeline:
    """Searches collections and answers questions from them."""

    def __init__(
        self, config: CoordinatorConfig, catalog: Catalog, pool: NodePool, metrics: Metrics
    ) -> None:
        stages = config.stages
        self._limits = config.limits
        self._catalog = catalog
        self._metrics = metrics
        self._embed = Batcher[EmbedRequest, Embedded](
            EmbedStage(pool), stages.embed, "embed", metrics, EmbedRequest.key
        )
        self._probe = ProbeStage()
        self._retrieve = RetrieveStage(pool)
        self._merge = MergeStage()
        self._find = Batcher[RetrieveRequest, Found](
            self._find_together, stages.retrieve, "retrieve", metrics, RetrieveRequest.key
        )
        self._prompt = PromptStage(pool, config.limits.prompt_tokens)
        self._generate = GenerateStage(pool, Gate(stages.generate, "generate", metrics))

    async def search(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        """The nearest chunks of a collection.

        Raises:
            RagrigError: as ``ragschema.errors`` tells; every class of it is
                either the caller's to mend or says when to try again.
        """
        with self._metrics.operation("search"):
            outcome = await self._search(spec, context)
            self._metrics.observe_timings(outcome.timings)
            self._metrics.observe_usage(outcome.usage)
            return outcome

    async def embed(
        self, texts: tuple[str, ...], purpose: EmbedPurpose, context: CallContext
    ) -> tuple[F32, int]:
        """Vectors float32 [len(texts), dim] of unit length, and the tokens they took."""
        with self._metrics.operation("embed"):
            done = await self._embed.submit(EmbedRequest(texts, purpose), context)
            self._metrics.observe_usage(Usage(embed_tokens=done.value.tokens))
            return done.value.vectors, done.value.tokens

    async def query(self, spec: QuerySpec, context: CallContext) -> AsyncGenerator[QueryEvent]:
        """Retrieval, then tokens and citations, then the end.

        Closing the generator cancels the work on every node.
        """
        started_s = time.perf_counter()
        with self._metrics.operation("query"):
            outcome = await self._search(spec.search, context)
            yield RetrievalEvent(outcome)

            prompt_s = time.perf_counter()
            prompt = await self._prompt(spec, outcome.hits, context)
            answer = Answer(outcome, prompt, started_s, _ms_since(prompt_s))
            async with aclosing(self._generate(prompt.spec, context)) as events:
                async for event in events:
                    for told in answer.take(event):
                        yield told

            done = answer.done()
            self._metrics.observe_timings(done.timings)
            self._metrics.observe_usage(done.usage)
            yield done

    async def close(self) -> None:
        """Lets accepted requests end for a few seconds, then fails them."""
        await asyncio.gather(self._embed.close(), self._find.close())

    async def _search(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        started_s = time.perf_counter()
        with self._catalog.use(spec.collection) as live:
            snapshot = live.snapshot
            manifest = snapshot.manifest
            check_search(spec, manifest, self._limits.max_k)
            embedded: Batched[Embedded] | None = None
            if spec.vector is not None:
                vector = query_vector(spec.vector, manifest.dim, manifest.metric)
            if spec.text is not None and manifest.live_rows:
                assert manifest.embedder is not None, "check_search saw to it"
                wanted = EmbedRequest(
                    (spec.text,), EmbedPurpose.QUERY, manifest.embedder.fingerprint
                )
                embedded = await self._embed.submit(wanted, context)
                vector = query_vector(embedded.value.vectors[0], manifest.dim, manifest.metric)
            if not manifest.live_rows:
                return _nothing(snapshot.id.generation, spec.collection, started_s)
            request = RetrieveRequest(
                snapshot=snapshot,
                coarse=live.coarse,
                vector=vector,
                k=spec.k,
                nprobe=list_count(spec, manifest),
                refine_k=refine_count(spec, manifest),
                bitmap=await _bitmap(live, spec.filters),
            )
            found = await self._find.submit(request, context)
            return self._outcome(spec, live, embedded, found, started_s)

    async def _find_together(
        self, requests: Sequence[RetrieveRequest], context: CallContext
    ) -> list[Found]:
        """Probe, retrieve and merge for requests of one snapshot."""
        first = requests[0]
        start_s = time.perf_counter()
        widths = [r.nprobe for r in requests]
        lists = await self._probe(first.coarse, stack_vectors(requests), widths)
        probed_s = time.perf_counter()
        answers = await self._retrieve(requests, lists, context)
        scanned_s = time.perf_counter()
        ranking = self._merge(answers.results, len(requests), max(r.k for r in requests))
        distances, row_ids = ranking.distances.tolist(), ranking.row_ids.tolist()
        counts = ranking.counts.tolist()
        merged_s = time.perf_counter()
        return [
            Found(
                distances=distances[i][: min(count, request.k)],
                row_ids=row_ids[i][: min(count, request.k)],
                coverage=answers.coverage,
                probe_s=probed_s - start_s,
                scan_s=scanned_s - probed_s,
                merge_s=merged_s - scanned_s,
            )
            for i, (request, count) in enumerate(zip(requests, counts, strict=True))
        ]

    def _outcome(
        self,
        spec: SearchSpec,
        live: Live,
        embedded: Batched[Embedded] | None,
        found: Batched[Found],
        started_s: float,
    ) -> SearchOutcome:
        rows = found.value
        check_coverage(rows.coverage, spec.min_coverage)
        self._metrics.observe_coverage(rows.coverage)
        lookup_s = time.perf_counter()
        hits = to_hits(live.snapshot, rows.distances, rows.row_ids, live.snapshot.manifest.metric)
        now_s = time.perf_counter()
        queued_s = found.queued_s + (embedded.queued_s if embedded else 0.0)
        return SearchOutcome(
            collection=spec.collection,
            generation=live.snapshot.id.generation,
            hits=hits,
            coverage=rows.coverage,
            timings=Timings(
                queue_ms=queued_s * 1e3,
                embed_ms=embedded.ran_s * 1e3 if embedded else None,
                probe_ms=rows.probe_s * 1e3 if live.coarse is not None else None,
                scan_ms=rows.scan_s * 1e3,
                merge_ms=(rows.merge_s + now_s - lookup_s) * 1e3,
                total_ms=(now_s - started_s) * 1e3,
            ),
            usage=Usage(embed_tokens=embedded.value.tokens if embedded else 0),
        )


async def _bitmap(live: Live, terms: tuple[FilterTerm, ...]) -> U8 | None:
    if not terms:
        return None
    # A filter that is not in the cache reads the metadata of every row.
    return await asyncio.to_thread(live.snapshot.filter_bitmap, terms)


def _nothing(generation: int, collection: str, started_s: float) -> SearchOutcome:
    """What an empty collection answers: all of it was searched."""
    return SearchOutcome(
        collection, generation, (), Coverage(1.0), Timings(total_ms=_ms_since(started_s)), Usage()
    )


def _ms_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1e3
