"""What ``bench.plan_fidelity`` serves: a model of Dec-S's shape, a collection, a profile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.common import note
from bench.llm_model import DEC_S, save_model
from coordinator.load.prompts import Part, PartKind, text_of
from coordinator.profile.collection import Contents, Vectors, make_collection
from coordinator.profile.measure import Effort
from coordinator.profile.plan import FULL_GRID, scope_of
from coordinator.profile.run import Watcher, profile_rig
from llm_node.checkpoint import fingerprint
from llm_node.embed.layout import read_sentence_model
from ragschema.here import usable_cores
from ragschema.llm_rig import EngineOptions
from ragschema.profile import Profile, read_profile, write_profile
from ragschema.rig import (
    CoordinatorConfig,
    LlmNodeConfig,
    RecallSamplingConfig,
    RetrievalNodeConfig,
    RigConfig,
)
from ragschema.storage.manifest import EmbedderRef

COLLECTION = "passages"
#: MiniLM's vectors; codes of 8 dimensions a byte, lists by the root of the rows.
VECTORS = Vectors(100_000, 384, 256, 48)
PASSAGE_WORDS = 40
_SEED = 17
_ROLES = (
    "embed", "index_scan", "pq_scan", "retrieval_call", "prefill", "decode", "mixed", "crowded",
    "kv_transfer", "coordinator",
)  # fmt: skip
#: Sizes of what is planned lie within these and are none of them.
_GRID = replace(
    FULL_GRID,
    embed=tuple((b, n) for b in (1, 2, 4) for n in (8, 32, 128, 250)),
    index_lists=(128, 256, 512),
    index_batches=(1, 4, 16),
    scan=tuple((b, n) for b in (1, 4, 16) for n in (1, 8, 64)),
    prefill=(*((1, n) for n in (48, 96, 192, 400, 640)), (2, 96), (2, 256), (4, 64), (8, 64)),
    decode=tuple((b, n) for b in (1, 2, 4, 8, 16) for n in (64, 480)),
    decode_tokens=24,
    mixed=tuple((b, n) for b in (1, 2, 4, 8, 16) for n in (2, 10)),
    kv_tokens=(48, 128, 320, 640),
    hits=(1, 5, 20),
)
_QUICK = Effort(warm_up=1, least=2, most=2, point_s=0.1, total_s=None)
_EFFORT = Effort(warm_up=1, least=5, most=30, point_s=2.0, total_s=None)


@dataclass(frozen=True)
class Stand:
    """What is measured, and where it lies.

    Attributes:
        beyond: plans may use sizes that the profile did not reach.
    """

    directory: Path
    rig: RigConfig
    profile: Profile
    beyond: bool = False

    @property
    def model(self) -> Path:
        return self.directory / "dec-s"


def prepare(directory: Path, quick: bool) -> Stand:
    """Makes what is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    model = directory / "dec-s"
    if not (model / "tokenizer.json").exists():
        note("writing a model")
        save_model(model, DEC_S, _SEED)
        _save_tokenizer(model)
    rig = base_rig(directory, model)
    if not (directory / "data" / "collections" / COLLECTION).exists():
        note(f"coding {VECTORS.count} vectors")
        (directory / "data").mkdir(exist_ok=True)
        asyncio.run(_collection(directory / "data"))
    return Stand(directory, rig, _profile(directory, rig, quick), beyond=quick)


def base_rig(directory: Path, model: Path) -> RigConfig:
    """Everything in one process each, one request at a time: what nobody has planned."""
    # No prompt is known beforehand: what plans say of lengths is then what is computed.
    engine = EngineOptions(prefix_reuse=False, max_tokens_per_request=1536)
    writer = LlmNodeConfig(
        "writer", roles=("embed", "generate"), generator=f"hf:{model}", threads=usable_cores(),
        max_running=1, engine=engine,
    )  # fmt: skip
    quiet = CoordinatorConfig(port=0, recall_sampling=RecallSamplingConfig(share=0.0))
    return RigConfig(
        name="fidelity",
        data_dir=str(directory / "data"),
        coordinator=quiet,
        llm_nodes=(writer,),
        retrieval_nodes=(RetrievalNodeConfig("ret", backend="simd", threads=1),),
    )


def _save_tokenizer(model: Path) -> None:
    """Words that loads are made of, one token each; every other token has a text too."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    seen = " ".join(text_of(Part(PartKind.PASSAGE, n, 2000)) for n in range(8)).split()
    words = [*dict.fromkeys(seen), *(f"<{i}>" for i in range(DEC_S["vocab_size"]))]
    known = {word: at for at, word in enumerate(words[: DEC_S["vocab_size"]])}
    made = Tokenizer(models.WordLevel(known, unk_token="<0>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=made).save_pretrained(str(model))


async def _collection(data_dir: Path) -> None:
    layout = read_sentence_model("minilm")
    embedder = EmbedderRef("minilm", fingerprint(layout.checkpoint, layout.extra_files))
    contents = Contents(_passage, embedder)
    await make_collection(data_dir, COLLECTION, VECTORS, lambda *_: None, contents)


def _passage(row: int) -> str:
    return text_of(Part(PartKind.PASSAGE, row, PASSAGE_WORDS))


def _profile(directory: Path, rig: RigConfig, quick: bool) -> Profile:
    path = directory / "profile.json"
    if path.exists():
        return read_profile(path)
    # Nodes that can hold every batch of the grid, and remember the prompts of writers.
    writer = rig.llm_nodes[0]
    engine = replace(writer.engine, prefix_reuse=True)
    wide = replace(rig, llm_nodes=(replace(writer, max_running=24, engine=engine),))
    counts = tuple(range(1, usable_cores() + 1))
    scope = scope_of(wide, _ROLES, quick, VECTORS, counts)
    grid, effort = (scope.grid, _QUICK) if quick else (_GRID, _EFFORT)
    scope = replace(scope, grid=grid, effort=effort)
    outcome = asyncio.run(profile_rig(scope, Watcher(note, _told())))
    for role, why in outcome.profile.missing.items():
        note(f"  not measured: {role}: {why}")
    write_profile(outcome.profile, path)
    return outcome.profile


def _told() -> Any:
    every = 20

    def told(step: Any) -> None:
        if step.done % every == 0:
            note(f"  {step.done} of {step.total} points, {step.left_s or 0:.0f} s left")

    return told
