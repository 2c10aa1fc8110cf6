from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_node.engine.engine import Engine
from llm_node.generate import hf
from llm_node.generate.hf import HfGenerator
from llm_node.roles import GeneratorDeps, load_generator
from ragschema.errors import CorruptData, DeadlineExceeded, InvalidInput, PayloadTooLarge
from ragschema.types import (
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Sampling,
    TokenPiece,
)
from tests.llm_node.checkpoints import save_tiny_llama

PROMPT = "User: the quick brown fox\n\nAssistant:"


@contextlib.asynccontextmanager
async def _started(directory: Path) -> AsyncGenerator[HfGenerator, None]:
    generator = hf.load(str(directory), GeneratorDeps())
    await generator.start()
    try:
        yield generator
        generator.engine.check_integrity()
    finally:
        await generator.close()


@pytest.fixture
async def generator(tiny_llama: Path) -> AsyncGenerator[HfGenerator, None]:
    async with _started(tiny_llama) as started:
        yield started


def _spec(text: str = "the quick brown fox", **sampling: Any) -> GenerateSpec:
    return GenerateSpec((ChatMessage("user", text),), "", (), Sampling(**sampling))


async def _run(generator: HfGenerator, spec: GenerateSpec) -> tuple[str, GenerateEnd]:
    text = ""
    async for event in generator.generate(spec, CallContext.start(60)):
        if isinstance(event, GenerateEnd):
            return text, event
        assert isinstance(event, TokenPiece)
        assert event.text
        text += event.text
    raise AssertionError("no end")


def _reference_ids(directory: Path, tokens: int, prompt: str = PROMPT) -> list[int]:
    """What transformers itself generates, greedily."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return [int(x) for x in out[0, ids["input_ids"].shape[1] :]]


def _reference(directory: Path, tokens: int, prompt: str = PROMPT) -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = _reference_ids(directory, tokens, prompt)
    return str(tokenizer.decode(ids, skip_special_tokens=True))


async def test_greedy_equals_transformers_generate(
    generator: HfGenerator, tiny_llama: Path
) -> None:
    text, end = await _run(generator, _spec(max_tokens=40))
    assert text == _reference(tiny_llama, 40)
    assert end.finish_reason == "length"
    assert end.completion_tokens == 40
    assert 0 < end.first_token_us <= end.total_us


async def test_long_prompt_in_chunks_equals_transformers(long_llama: Path) -> None:
    words = "jumps over the lazy dog " * 60
    async with _started(long_llama) as generator:
        text, end = await _run(generator, _spec(words, max_tokens=12))
    assert end.prompt_tokens > 512
    assert text == _reference(long_llama, 12, f"User: {words.strip()}\n\nAssistant:")


async def test_running_sequences_do_not_mix(generator: HfGenerator) -> None:
    specs = [_spec(f"number {n}", max_tokens=15, temperature=1.0, seed=n) for n in range(4)]
    alone = [(await _run(generator, spec))[0] for spec in specs]
    together = await asyncio.gather(*(_run(generator, spec) for spec in specs))
    assert [text for text, _ in together] == alone
    assert len(set(alone)) == 4


async def test_seed_reproduces(generator: HfGenerator) -> None:
    spec = _spec(max_tokens=30, temperature=1.5, top_p=0.9, seed=42)
    first = (await _run(generator, spec))[0]
    assert first == (await _run(generator, spec))[0]
    assert first != (await _run(generator, _spec(max_tokens=30, temperature=1.5, seed=43)))[0]


async def test_stop_string_across_tokens(generator: HfGenerator) -> None:
    whole, _ = await _run(generator, _spec(max_tokens=40))
    stop = whole[4:9]
    text, end = await _run(generator, _spec(max_tokens=40, stop=(stop,)))
    assert text == whole[: whole.find(stop)]
    assert end.finish_reason == "stop"
    assert end.completion_tokens < 40


async def test_end_of_sequence_stops_and_is_no_text(
    generator: HfGenerator, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = _reference_ids(tiny_llama, 40)
    place = next(i for i in range(3, 40) if ids[i] not in ids[:i])
    monkeypatch.setattr(generator, "_eos", frozenset({ids[place]}))
    text, end = await _run(generator, _spec(max_tokens=40))
    assert (end.finish_reason, end.completion_tokens) == ("stop", place + 1)
    assert text == generator._tokenizer.decode(ids[:place])


async def test_generation_ends_where_the_context_ends(generator: HfGenerator) -> None:
    _, end = await _run(generator, _spec("lazy dog " * 10, max_tokens=1000))
    assert end.finish_reason == "length"
    assert end.prompt_tokens + end.completion_tokens == 128


async def test_prompt_longer_than_the_context_is_refused(generator: HfGenerator) -> None:
    with pytest.raises(PayloadTooLarge, match="reads 128") as caught:
        await _run(generator, _spec("lazy dog " * 100))
    assert caught.value.field == "messages"


async def test_no_messages_is_refused(generator: HfGenerator) -> None:
    with pytest.raises(InvalidInput, match="no messages"):
        await _run(generator, GenerateSpec((), "question", ()))


async def _answers(
    generator: HfGenerator, spec: GenerateSpec
) -> tuple[dict[int, str], dict[int, GenerateEnd]]:
    texts: dict[int, str] = {}
    ends: dict[int, GenerateEnd] = {}
    async for event in generator.generate(spec, CallContext.start(60)):
        assert event.index not in ends, "nothing comes behind an end"
        if isinstance(event, GenerateEnd):
            ends[event.index] = event
        else:
            texts[event.index] = texts.get(event.index, "") + event.text
    return texts, ends


async def test_several_answers_come_in_one_stream(generator: HfGenerator) -> None:
    options = {"max_tokens": 20, "temperature": 1.0, "seed": 3}
    texts, ends = await _answers(generator, _spec(n=3, **options))
    assert sorted(ends) == [0, 1, 2]
    assert len(set(texts.values())) == 3
    assert texts[0] == (await _run(generator, _spec(**options)))[0]
    assert {end.prompt_tokens for end in ends.values()} == {ends[0].prompt_tokens}
    assert all(end.completion_tokens == 20 for end in ends.values())


async def test_a_stop_string_ends_one_of_several_answers(generator: HfGenerator) -> None:
    options = {"max_tokens": 60, "temperature": 1.0, "seed": 3}
    whole, _ = await _answers(generator, _spec(n=2, **options))
    stop = next(whole[1][i : i + 4] for i in range(20) if whole[1][i : i + 4] not in whole[0])
    texts, ends = await _answers(generator, _spec(n=2, stop=(stop,), **options))
    assert (ends[0].finish_reason, ends[1].finish_reason) == ("length", "stop")
    assert texts[0] == whole[0]
    assert texts.get(1, "") == whole[1][: whole[1].find(stop)]
    stats = await generator.worker.stats()
    assert (stats.running, stats.blocks_used) == (0, 0)


async def test_stop_strings_wait_for_enough_tokens(generator: HfGenerator) -> None:
    whole, _ = await _run(generator, _spec(max_tokens=40))
    text, end = await _run(generator, _spec(max_tokens=40, min_tokens=40, stop=(whole[4:7],)))
    assert text == whole
    assert end.finish_reason == "length"


async def test_log_probabilities_spell_the_answer(generator: HfGenerator) -> None:
    spec = _spec("漢字 😀", max_tokens=30, temperature=1.3, seed=8, logprobs=2)
    pieces = [
        event
        async for event in generator.generate(spec, CallContext.start(60))
        if isinstance(event, TokenPiece)
    ]
    told = [one for piece in pieces for one in piece.logprobs]
    assert b"".join(one.chosen.data for one in told).decode(errors="replace") == "".join(
        piece.text for piece in pieces
    )
    assert all(len(one.top) == 2 for one in told)
    assert all(one.top[0].logprob >= one.top[1].logprob for one in told)
    assert all(one.chosen.logprob <= one.top[0].logprob <= 0 for one in told)


async def test_sampling_out_of_range_and_unknown_stop_ids_are_refused(
    generator: HfGenerator,
) -> None:
    for options, field in (({"top_k": -1}, "sampling.top_k"), ({"stop_ids": (999,)}, "stop_ids")):
        with pytest.raises(InvalidInput) as caught:
            await _run(generator, _spec(**options))
        assert field in str(caught.value.field)


async def test_passed_deadline_stops(generator: HfGenerator) -> None:
    events = generator.generate(_spec(max_tokens=100), CallContext.start(-1))
    with pytest.raises(DeadlineExceeded):
        await anext(events)


async def test_closing_the_stream_stops_the_work(
    long_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    original = Engine.step

    def counted(self: Engine) -> Any:
        nonlocal steps
        steps += 1
        return original(self)

    async with _started(long_llama) as generator:
        monkeypatch.setattr(Engine, "step", counted)
        events = generator.generate(_spec(max_tokens=50_000), CallContext.start(60))
        await anext(events)
        await events.aclose()
        _, end = await _run(generator, _spec(max_tokens=1))  # the engine is free for others
        stats = await generator.worker.stats()
    assert end.completion_tokens == 1
    assert steps < 20_000
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)


async def test_chat_template_is_used(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}!{% endfor %}"
    directory = save_tiny_llama(tmp_path / "chat", template=template)
    async with _started(directory) as generator:
        text, end = await _run(generator, _spec("lazy dog", max_tokens=10))
    assert text == _reference(directory, 10, "lazy dog!")
    assert end.prompt_tokens == len(generator.token_offsets(["lazy dog!"])[0])


def test_offsets_are_characters(generator: HfGenerator) -> None:
    text = "Größe 😀 x"
    (offsets,) = generator.token_offsets([text])
    assert offsets[-1].tolist() == [8, 9] or offsets[-1].tolist() == [7, 9]
    assert {text[a:b].strip() for a, b in offsets} >= {"😀", "x"}


def test_info(generator: HfGenerator, tiny_llama: Path) -> None:
    info = generator.info
    assert info.name == f"hf:{tiny_llama.name}"
    assert info.max_input_tokens == 128


def test_encoder_models_are_refused(tiny_bert: Path) -> None:
    with pytest.raises((InvalidInput, CorruptData)):
        hf.load(str(tiny_bert), GeneratorDeps())


def test_missing_weights_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    config = directory / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(CorruptData, match=r"model\.safetensors lacks model\.layers\.2"):
        hf.load(str(directory), GeneratorDeps())


def test_no_directory_is_refused() -> None:
    with pytest.raises(InvalidInput, match="names no directory"):
        load_generator("hf:", GeneratorDeps())
    with pytest.raises(InvalidInput, match="no model directory"):
        load_generator("hf:/no/such/place", GeneratorDeps())
