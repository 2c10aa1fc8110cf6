"""What does it cost to read prompts on one node and write answers on another?

A prefill and a decode node on this machine, one thread each, against the prefill
node answering alone; prompts of 512 tokens in turn, none of them twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bench.common import emit, machine, note, options, typed_failures
from bench.llm_model import DEC_S, save_model, split_words
from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStage
from coordinator.stages.prefill_decode import PrefillDecodeStage
from ragschema.errors import Unavailable
from ragschema.rig import BatchConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import CallContext, ChatMessage, GenerateSpec, Sampling, TokenPiece

_PROMPT_TOKENS = 512
_START_S = 120.0
#: Small, so that a few prompts have written all of it: on a machine that hands out
#: memory page by page, writing a page for the first time costs several times the copy.
_KV_MIB = 128
_WARM_UP = 3
_SHAPE = {**DEC_S, "max_position_embeddings": 1024}


def main() -> None:
    """Prints the overhead, and what compression would change."""
    parser = options(__doc__ or "")
    parser.add_argument("--seed", type=int, default=1, help="of weights and prompts")
    parser.add_argument("--pairs", type=int, default=9, help="prompts per way")
    given = parser.parse_args()
    with typed_failures():
        result = figures(given.seed, given.pairs)
    emit({"question": "prefill and decode apart", **result, "machine": machine()}, given)


def figures(seed: int, pairs: int) -> dict[str, Any]:
    """Everything this benchmark measures, with a checkpoint of its own."""
    with tempfile.TemporaryDirectory(prefix="ragrig-bench-") as folder:
        directory = Path(folder) / "dec-s"
        save_model(directory, _SHAPE, seed)
        result = measure(directory, seed, pairs)
        note("codec ...")
        return {**result, "codec": codec(directory, seed)}


def measure(directory: Path, seed: int, pairs: int) -> dict[str, Any]:
    """Medians in ms, and overheads in percent; ``directory`` holds a checkpoint of ``_SHAPE``.

    ``disagg_overhead_pct`` compares when the second token arrives, the first one
    that the decode node draws: prompt, first token, transfer and a decode step are
    all behind it. The first token itself leaves the prefill node earlier.
    """
    split_words(directory, _SHAPE["vocab_size"])
    with _node(directory, "prefill,generate") as one, _node(directory, "decode") as other:
        times = asyncio.run(_compare((one, other), seed, pairs))
    alone, apart = times["alone"], times["apart"]
    median = {
        name: [round(statistics.median(t[i] for t in ran) * 1e3, 1) for i in (0, 1)]
        for name, ran in times.items()
    }
    over = [
        statistics.median(a[i] / s[i] for a, s in zip(apart, alone, strict=True)) for i in (0, 1)
    ]
    return {
        "disagg_overhead_pct": round((over[1] - 1) * 100, 1),
        "first_token_overhead_pct": round((over[0] - 1) * 100, 1),
        "first_and_second_token_ms": median,
        "prompt_tokens": _PROMPT_TOKENS,
        "pairs": pairs,
    }


async def _compare(
    addresses: tuple[str, str], seed: int, pairs: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds to the first and to the second token, each way, in turn."""
    reads, writes = (
        LlmNodeConfig(name="pre", roles=("generate", "prefill"), address=addresses[0]),
        LlmNodeConfig(name="dec", roles=("decode",), address=addresses[1]),
    )
    away = (RetrievalNodeConfig(name="ret", address="127.0.0.1:9"),)
    pool = NodePool(RigConfig(llm_nodes=(reads, writes), retrieval_nodes=away), Metrics())
    await pool.start()
    gate = Gate(BatchConfig(), "generate", Metrics())
    ways: dict[str, Any] = {
        "alone": GenerateStage(pool, gate),
        "apart": PrefillDecodeStage(pool, gate),
    }
    rng = random.Random(seed)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    try:
        for number in range(pairs + _WARM_UP):
            for name, stage in ways.items():
                taken = await _first_two(stage, _spec(rng))
                if number >= _WARM_UP:
                    times[name].append(taken)
                    note(f"{name}: {taken[0] * 1e3:.0f} ms, {taken[1] * 1e3:.0f} ms")
    finally:
        await pool.close()
    return times


async def _first_two(stage: Any, spec: GenerateSpec) -> tuple[float, float]:
    started_s = time.perf_counter()
    async with aclosing(stage(spec, CallContext.start(120))) as events:
        seen = [
            time.perf_counter() - started_s
            async for event in events
            if isinstance(event, TokenPiece)
        ]
    return seen[0], seen[1]


def _spec(rng: random.Random) -> GenerateSpec:
    # "User:" and "Assistant:" are a token each.
    words = " ".join(f"w{rng.randrange(1, 50_000)}" for _ in range(_PROMPT_TOKENS - 2))
    return GenerateSpec((ChatMessage("user", words),), "", (), Sampling(max_tokens=4))


@contextlib.contextmanager
def _node(directory: Path, roles: str) -> Iterator[str]:
    """An LLM node's address."""
    with tempfile.TemporaryDirectory(prefix="ragrig-bench-") as scratch:
        ready, log = Path(scratch) / "ready", Path(scratch) / "log"
        command = [
            sys.executable, "-m", "llm_node", "serve", "--roles", roles, "--threads", "1",
            "--generator", f"hf:{directory}", "--kv-mib", str(_KV_MIB), "--ready-file", str(ready),
            "--parent-pid", str(os.getpid()),
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            until_s = time.monotonic() + _START_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > until_s:
                    raise Unavailable(f"the node did not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield str(json.loads(ready.read_text(encoding="utf-8"))["address"])
        finally:
            process.terminate()
            process.wait(30)


def codec(directory: Path, seed: int) -> dict[str, Any]:
    """Size and speed of a prompt's KV as messages, with zlib and without."""
    from llm_node.engine.config import EngineConfig
    from llm_node.engine.engine import Engine
    from llm_node.engine.request import EngineRequest, PausePolicy
    from llm_node.transfer.codec import SnapshotReader, to_parts
    from ragschema.wire import kv_pb2

    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        engine = Engine.load(directory, EngineConfig(threads=1, dtype=dtype))
        rng = random.Random(seed)
        prompt = tuple(rng.randrange(1, 50_000) for _ in range(_PROMPT_TOKENS))
        pause = PausePolicy(every_tokens=1, hold_kv=True)
        engine.add(EngineRequest("codec", prompt, Sampling(max_tokens=4), pause=pause))
        while not engine.stats().paused:
            engine.step()
        snapshot = engine.export_kv("codec")
        raw = engine.model.layout.token_bytes * snapshot.computed
        for kind, name in (
            (kv_pb2.KV_COMPRESSION_NONE, "none"),
            (kv_pb2.KV_COMPRESSION_ZLIB, "zlib"),
        ):
            reader = SnapshotReader(engine.model.layout, snapshot.fingerprint, engine.max_tokens)
            started_s = time.perf_counter()
            parts = [part.SerializeToString() for part in to_parts(snapshot, kind)]
            packed_s = time.perf_counter() - started_s
            for part in parts:
                reader.take(kv_pb2.KvPart.FromString(part))
            reader.finish()
            taken_s = time.perf_counter() - started_s - packed_s
            found[f"{dtype}_{name}"] = {
                "size_share": round(sum(map(len, parts)) / raw, 3),
                "write_mb_per_s": round(raw / packed_s / 1e6),
                "read_mb_per_s": round(raw / taken_s / 1e6),
                "bytes": raw,
            }
    return found


if __name__ == "__main__":
    main()
