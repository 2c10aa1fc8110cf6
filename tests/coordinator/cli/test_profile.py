"""``ragrig profile``: options, merging, and files that are another machine's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import run
from coordinator.profile.plan import Scope
from coordinator.profile.run import Outcome, Watcher
from ragschema.here import this_machine, this_software
from ragschema.profile import (
    FORMAT,
    Profile,
    RoleProfile,
    Sample,
    fitted,
    read_profile,
    write_profile,
)
from ragschema.profile_fit import Fit, Term

CONFIG = "llm_nodes: [{name: a, threads: 1}]\nretrieval_nodes: [{name: b, backend: simd}]\n"


def measured(role: str = "embed") -> Profile:
    samples = tuple(Sample({"batch": float(b)}, (0.01 * b, 0.011 * b)) for b in (1, 2, 4, 8))
    bare = RoleProfile(role, "minilm", 1, {}, this_software(), "2026-11-28", 9.0, samples,
                       Fit((Term("1", 0.0),), (0.0,), False, 0.0))  # fmt: skip
    return Profile(FORMAT, this_machine(), (fitted(bare, ("1", "batch")),), {"rerank": "none"})


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """What was to be measured; nothing is."""
    seen: list[Scope] = []

    async def stand_in(scope: Scope, watcher: Watcher) -> Outcome:
        watcher.phase("starting nodes")
        seen.append(scope)
        return Outcome(measured(), 2)

    monkeypatch.setattr("coordinator.cli.profiling.profile_rig", stand_in)
    monkeypatch.setattr("ragschema.procs.calm_thread_pools", lambda _: None)
    return seen


def test_a_profile_is_written_and_merged_with(
    scopes: list[Scope], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rig.yaml").write_text(CONFIG)
    argv = ["profile", "--quick", "-c", "rig.yaml", "--out", "p.json", "--roles", "embed, pq_scan"]
    assert run(argv) == 0
    shown = capsys.readouterr().out
    for part in (
        "embed",
        "minilm",
        "left out 2 points",
        "not measured: rerank",
        "was busy",
        "p.json",
    ):
        assert part in shown
    assert run(argv) == 0
    (embed,) = read_profile(Path("p.json")).roles
    assert [len(s.seconds) for s in embed.samples] == [4, 4, 4, 4]
    assert run([*argv, "--fresh", "--json"]) == 0
    capsys.readouterr()
    assert len(read_profile(Path("p.json")).roles[0].samples[0].seconds) == 2
    assert scopes[0].roles == {"embed", "pq_scan"}
    assert [n.backend for n in scopes[0].retrieval_nodes] == ["simd"]
    assert (scopes[0].vectors.count, scopes[0].vectors.dim) == (40_000, 128)


def test_json_is_the_file(scopes: list[Scope], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "--json", "--vectors", "5000", "--dim", "64", "--threads", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("profile.json").read_text())
    assert scopes[0].vectors.nlist == 64
    assert len(scopes[0].retrieval_nodes) == 4


def test_a_profile_of_another_machine_is_kept(
    scopes: list[Scope], capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(measured(), machine=replace(this_machine(), cpu="Another CPU"))
    write_profile(other, Path("profile.json"))
    assert run(["profile", "--quick"]) == 1
    shown = capsys.readouterr().err
    assert "another machine" in shown
    assert "--fresh" in shown
    assert not scopes, "found before anything was measured"
    assert read_profile(Path("profile.json")) == other
    assert run(["profile", "--quick", "--fresh"]) == 0
    assert read_profile(Path("profile.json")).machine == this_machine()


def test_roles_of_other_software_are_flagged(
    scopes: list[Scope], capsys: pytest.CaptureFixture[str]
) -> None:
    old = measured("decode")
    software = replace(this_software(), ragrig="0.0.9")
    write_profile(
        replace(old, roles=(replace(old.roles[0], software=software),)), Path("profile.json")
    )
    assert run(["profile"]) == 0
    assert "decode minilm is of other software: ragrig 0.0.9 -> " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--roles", "embd"], "did you mean embed?"),
        (["--dim", "100"], "no multiple of 8"),
        (["--threads", "0"], "'0' is no number from 1"),
        (["--threads", "1,x"], "'x' is no number from 1"),
        (["-c", "none.yaml"], "no rig file none.yaml"),
    ],
)
def test_wrong_options_are_named(
    scopes: list[Scope], options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["profile", *options]) == 1
    assert part in capsys.readouterr().err
    assert not scopes


def test_a_broken_file_is_not_overwritten(
    scopes: list[Scope], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("profile.json").write_text("{}")
    assert run(["profile"]) == 1
    assert "format" in capsys.readouterr().err
    assert Path("profile.json").read_text() == "{}"
    assert not scopes


def test_an_unwritable_place(scopes: list[Scope], capsys: pytest.CaptureFixture[str]) -> None:
    document: Any = ["profile", "--out", "no/such/profile.json"]
    assert run(document) == 1
    assert "cannot write" in capsys.readouterr().err
