"""A question's way, in order. Start reading here.

    search:  check -> effort -> embed -> find (probe -> retrieve -> merge) -> rerank
    query:   rewrite -> search (once for each query) -> prompt -> write -> citations

``write`` is one of four ways, as the rig says: a node alone, a prefill and a decode
node, or a node that asks for more while it writes (interval -> search, knn -> search).

Each stage is a small class in ``coordinator/stages/``. Requests that arrive
together share one embedding call, one probe and one call to each retrieval
node; the two batchers below decide what "together" means. Afterwards the
sampler may compare a search with an exact one, when nobody waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from coordinator.batch import Batched
from coordinator.batcher import Batcher
from coordinator.catalog import Catalog, Live
from coordinator.metrics import Metrics
from coordinator.nodes.clients import Embedded
from coordinator.nodes.pool import NodePool
from coordinator.recall.sampler import RecallSampler
from coordinator.recall.window import RecallEstimate
from coordinator.stages.answer import Answer
from coordinator.stages.check import check_coverage, check_search
from coordinator.stages.effort import Effort
from coordinator.stages.embed import EmbedRequest, EmbedStage
from coordinator.stages.find import FindStage, Found, report_of
from coordinator.stages.gate import Gate
from coordinator.stages.iterative import SearchTogether
from coordinator.stages.merge import to_hits
from coordinator.stages.prompt import PromptStage
from coordinator.stages.rerank import RerankStage
from coordinator.stages.retrieve import RetrieveRequest
from coordinator.stages.rewrite import RewriteStage
from coordinator.stages.row_filter import Reach, RowFilter, reach_of
from coordinator.stages.several import joined
from coordinator.stages.vectors import query_vector
from coordinator.stages.write import WriteStage
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
from ragschema.rig import CoordinatorConfig, StagesConfig
from ragschema.storage.manifest import Manifest
from ragschema.types import F32, CallContext, EmbedPurpose


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
        self._find = Batcher[RetrieveRequest, Found](
            FindStage(pool), stages.retrieve, "retrieve", metrics, RetrieveRequest.key
        )
        metrics.watch_recall(self.recall_estimates)
        self._prompt = PromptStage(pool, config.limits.prompt_tokens)
        self._gates = {
            name: Gate(getattr(stages, name), name, metrics)
            for name in ("rerank", "rewrite", "generate")
        }
        self._rerank = RerankStage(config.rerank, pool, self._gates["rerank"])
        self._rewrite = RewriteStage(config.rewrite, pool, self._gates["rewrite"], metrics)
        self._iterative = Batcher[SearchSpec, SearchOutcome](
            SearchTogether(self._search, metrics.workload), stages.iterative, "iterative", metrics
        )
        self._write = WriteStage(
            config.generation, pool, self._gates["generate"], self._iterative, self._model_of
        )
        self._sampler = RecallSampler(
            config.recall_sampling, pool, metrics, lambda: self._find.waiting > 0
        )

    async def search(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        """The nearest chunks of a collection.

        Raises:
            RagrigError: as ``ragschema.errors`` tells; every class of it is
                either the caller's to mend or says when to try again.
        """
        with self._metrics.operation("search"):
            outcome = await self._best(spec, context)
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
            outcome = await self._found(spec, context)
            yield RetrievalEvent(outcome)

            prompt_s = time.perf_counter()
            prompt = await self._prompt(spec, outcome.hits, context)
            answer = Answer(outcome, prompt, started_s, _ms_since(prompt_s), spec.sampling.n)
            async with aclosing(self._write(prompt, spec.search, context)) as events:
                async for event in events:
                    for told in answer.take(event):
                        yield told

            done = answer.done()
            self._metrics.observe_timings(done.timings)
            self._metrics.observe_usage(done.usage)
            self._metrics.workload.answered(done.timings, done.usage)
            yield done

    async def configure(self, stages: StagesConfig) -> None:
        """Batch sizes, waits and limits of every stage from now on; no request is lost."""
        self._embed.configure(stages.embed)
        self._find.configure(stages.retrieve)
        self._iterative.configure(stages.iterative)
        for name, gate in self._gates.items():
            await gate.configure(getattr(stages, name))

    async def close(self) -> None:
        """Lets accepted requests end for a few seconds, then fails them."""
        await self._sampler.close()
        await asyncio.gather(self._iterative.close(), self._embed.close(), self._find.close())

    def recall_estimates(self) -> dict[str, RecallEstimate]:
        """What sampled searches of the served collections reached, by collection."""
        return self._sampler.estimates(self._catalog.names())

    def _model_of(self, collection: str) -> str | None:
        with self._catalog.use(collection) as live:
            embedder = live.snapshot.manifest.embedder
            return None if embedder is None else embedder.fingerprint

    async def _found(self, spec: QuerySpec, context: CallContext) -> SearchOutcome:
        """What a question's searches find, with its own words or with others."""
        rewritten = await self._rewrite(spec, context)
        if rewritten.ran_s is None:
            return await self._best(spec.search, context)
        wide = self._rerank.widened(spec.search)
        queries = rewritten.queries or (spec.question,)
        searches = (self._search(replace(wide, text=query), context) for query in queries)
        outcome = joined(await asyncio.gather(*searches), rewritten.queries, wide.k)
        outcome = await self._rerank(spec.search, outcome, context)
        timings = replace(
            outcome.timings,
            queue_ms=outcome.timings.queue_ms + rewritten.queued_s * 1e3,
            rewrite_ms=rewritten.ran_s * 1e3,
            total_ms=outcome.timings.total_ms + (rewritten.queued_s + rewritten.ran_s) * 1e3,
        )
        return replace(outcome, timings=timings)

    async def _best(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        """What a search finds, reranked where the rig says so."""
        outcome = await self._search(self._rerank.widened(spec), context)
        return await self._rerank(spec, outcome, context)

    async def _search(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        started_s = time.perf_counter()
        with self._catalog.use(spec.collection) as live:
            manifest = live.snapshot.manifest
            check_search(spec, manifest, self._limits.max_k)
            effort = live.planner.effort(spec)
            if not manifest.live_rows:
                if spec.vector is not None:
                    query_vector(spec.vector, manifest.dim, manifest.metric)
                return _nothing(live.snapshot.id.generation, spec.collection, started_s)
            vector, embedded = await self._vector(spec, manifest, context)
            row_filter = await _row_filter(live, spec.filters)
            request = RetrieveRequest(
                snapshot=live.snapshot,
                coarse=live.coarse,
                vector=vector,
                k=spec.k,
                effort=effort,
                reach=self._reach(effort, manifest, row_filter),
                row_filter=row_filter,
            )
            found = await self._find.submit(request, context)
            outcome = self._outcome(spec, request, embedded, found, started_s)
            self._sampler.offer(live, request, found.value)
            return outcome

    async def _vector(
        self, spec: SearchSpec, manifest: Manifest, context: CallContext
    ) -> tuple[F32, Batched[Embedded] | None]:
        """The query's vector, and the call that embedded it."""
        if spec.vector is not None:
            return query_vector(spec.vector, manifest.dim, manifest.metric), None
        assert spec.text is not None, "check_search saw to it"
        assert manifest.embedder is not None, "check_search saw to it"
        wanted = EmbedRequest((spec.text,), EmbedPurpose.QUERY, manifest.embedder.fingerprint)
        embedded = await self._embed.submit(wanted, context)
        vector = query_vector(embedded.value.vectors[0], manifest.dim, manifest.metric)
        return vector, embedded

    def _reach(self, effort: Effort, manifest: Manifest, row_filter: RowFilter | None) -> Reach:
        if manifest.index is None or effort.nprobe is None:
            return Reach(0, 0)
        share = self._limits.max_filter_probe_share
        return reach_of(effort.nprobe, manifest.index.nlist, row_filter, share)

    def _outcome(
        self,
        spec: SearchSpec,
        request: RetrieveRequest,
        embedded: Batched[Embedded] | None,
        found: Batched[Found],
        started_s: float,
    ) -> SearchOutcome:
        snapshot, rows = request.snapshot, found.value
        check_coverage(rows.coverage, spec.min_coverage)
        self._metrics.observe_coverage(rows.coverage)
        lookup_s = time.perf_counter()
        hits = to_hits(snapshot, rows.distances, rows.row_ids, snapshot.manifest.metric)
        now_s = time.perf_counter()
        queued_s = found.queued_s + (embedded.queued_s if embedded else 0.0)
        return SearchOutcome(
            collection=spec.collection,
            generation=snapshot.id.generation,
            hits=hits,
            coverage=rows.coverage,
            timings=Timings(
                queue_ms=queued_s * 1e3,
                embed_ms=embedded.ran_s * 1e3 if embedded else None,
                probe_ms=rows.probe_s * 1e3 if request.coarse is not None else None,
                scan_ms=rows.scan_s * 1e3,
                merge_ms=(rows.merge_s + now_s - lookup_s) * 1e3,
                total_ms=(now_s - started_s) * 1e3,
            ),
            usage=Usage(embed_tokens=embedded.value.tokens if embedded else 0),
            retrieval=report_of(request, rows),
        )


async def _row_filter(live: Live, terms: tuple[FilterTerm, ...]) -> RowFilter | None:
    if not terms:
        return None
    # A filter that is not known yet reads the metadata of every row.
    return live.filters.known(terms) or await asyncio.to_thread(live.filters.find, terms)


def _nothing(generation: int, collection: str, started_s: float) -> SearchOutcome:
    """What an empty collection answers: all of it was searched."""
    return SearchOutcome(
        collection, generation, (), Coverage(1.0), Timings(total_ms=_ms_since(started_s)), Usage()
    )


def _ms_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1e3
