"""A profile file: strict, of one machine, merged by what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound, VersionMismatch
from ragschema.here import Machine, Software
from ragschema.profile import (
    FORMAT,
    MAX_REPEATS,
    Profile,
    RoleProfile,
    Sample,
    fitted,
    merged,
    read_profile,
    require_machine,
    software_differences,
    stale,
    write_profile,
)
from ragschema.profile_fit import Fit, Term

MACHINE = Machine("A CPU", 2, 7.8, "avx2", ("A GPU",))
SOFTWARE = Software("0.1.0", 1, "abc", "3.11.2", {"numpy": "2.4.6", "torch": None})
TERMS = ("1", "batch")
BARE = Fit((Term("1", 0.0),), (0.0,), False, 0.0)


def role(name: str = "embed", variant: str = "minilm", scale: float = 1.0) -> RoleProfile:
    samples = tuple(
        Sample({"batch": float(b)}, tuple(scale * (0.01 + 0.002 * b) * r for r in (1, 1.01, 1.02)))
        for b in (1, 4, 16, 64)
    )
    about = {"dim": 384.0, "kind": "x"}
    bare = RoleProfile(
        name, variant, 1, about, SOFTWARE, "2026-11-28T12:00:00+00:00", 0.3, samples, BARE
    )
    return fitted(bare, TERMS)


def profile(*roles: RoleProfile, **changed: Any) -> Profile:
    made = Profile(FORMAT, MACHINE, roles or (role(),), {"rerank": "no node reranks"})
    return replace(made, **changed)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_profile(profile(role(), role("pq_scan", "simd")), path)
    assert read_profile(path) == profile(role(), role("pq_scan", "simd"))
    assert [p.name for p in tmp_path.iterdir()] == ["profile.json"]


def test_a_prediction_and_its_range() -> None:
    embed = role()
    inside = embed.predict({"batch": 8.0})
    assert inside.seconds == pytest.approx(0.026 * 1.01, rel=0.02)
    assert inside.low < inside.seconds < inside.high
    assert not inside.extrapolated
    with pytest.raises(IncompatibleRequest, match="batch from 1 to 64, not for 128"):
        embed.predict({"batch": 128.0})
    outside = embed.predict({"batch": 128.0}, allow_extrapolation=True)
    assert outside.extrapolated
    assert outside.high / outside.seconds > inside.high / inside.seconds
    with pytest.raises(InvalidInput, match="features batch, not tokens"):
        embed.predict({"tokens": 8.0})
    with pytest.raises(InvalidInput, match="'tokens'"):
        embed.range_of("tokens")


def test_outliers_among_repeats_do_not_matter() -> None:
    embed = role()
    spiky = replace(
        embed,
        samples=tuple(replace(s, seconds=(*s.seconds, s.seconds[0], 9.0)) for s in embed.samples),
    )
    want = embed.predict({"batch": 8.0}).seconds
    assert fitted(spiky, TERMS).predict({"batch": 8.0}).seconds == pytest.approx(want, rel=0.02)
    assert spiky.samples[0].median_s == pytest.approx(embed.samples[0].median_s, rel=0.02)
    assert spiky.samples[0].dispersion < 0.1


def test_a_role_is_found_or_its_absence_explained() -> None:
    later = replace(role(), measured_at="2026-11-29T12:00:00+00:00", threads=2)
    found = profile(role(), later, missing={"rerank": "no node reranks", "pq_scan faiss": "broke"})
    assert found.find("embed").threads == 2, "the newest"
    assert found.find("embed", threads=1).threads == 1
    assert found.find("embed", "minilm", 2) is later
    with pytest.raises(NotFound, match="no rerank: no node reranks"):
        found.find("rerank")
    with pytest.raises(NotFound, match=r"no pq_scan \(faiss\): broke"):
        found.find("pq_scan", "faiss")
    with pytest.raises(NotFound, match="no decode"):
        found.find("decode")


def test_a_rerun_adds_repeats_and_points() -> None:
    old, new = role(), role()
    more = replace(new, samples=(*new.samples, Sample({"batch": 128.0}, (0.27,))))
    both = merged(profile(old), profile(fitted(more, TERMS)))
    (embed,) = both.roles
    assert [len(s.seconds) for s in embed.samples] == [6, 6, 6, 6, 1]
    assert embed.range_of("batch") == (1, 128)
    assert len(embed.fit.residuals) == 5
    many = replace(new, samples=tuple(Sample(s.at, (1.0,) * MAX_REPEATS) for s in new.samples))
    (kept,) = merged(profile(old), profile(fitted(many, TERMS))).roles
    assert {len(s.seconds) for s in kept.samples} == {MAX_REPEATS}
    assert kept.samples[0].median_s == 1.0, "the newest are kept"


def test_a_rerun_of_one_role_keeps_the_others() -> None:
    old = profile(role(), missing={"rerank": "none", "pq_scan faiss": "broke", "decode": "none"})
    new = profile(role("pq_scan", "faiss"), missing={"decode": "none", "decode x": "too few"})
    both = merged(old, new)
    assert [r.role for r in both.roles] == ["embed", "pq_scan"]
    assert both.missing == {"rerank": "none", "decode": "none", "decode x": "too few"}


def test_other_software_replaces() -> None:
    newer = replace(SOFTWARE, libraries={"numpy": "2.5.0", "torch": None})
    fresh = replace(role(scale=3.0), software=newer)
    both = merged(profile(role(), role("pq_scan", "simd")), profile(fresh))
    assert [len(r.samples[0].seconds) for r in both.roles] == [3, 3]
    assert both.find("embed").samples[0].seconds[0] == pytest.approx(0.036)
    assert stale(both, newer) == {"pq_scan simd": ("numpy 2.4.6 -> 2.5.0",)}
    assert stale(both, SOFTWARE) == {"embed minilm": ("numpy 2.5.0 -> 2.4.6",)}


def test_another_commit_is_not_another_speed() -> None:
    assert software_differences(SOFTWARE, replace(SOFTWARE, commit="def+")) == ()
    assert software_differences(SOFTWARE, replace(SOFTWARE, protocol=2)) == ("protocol 1 -> 2",)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"cpu": "B CPU"}, "cpu 'A CPU' and not 'B CPU'"),
        ({"cores": 8}, "cores 2 and not 8"),
        ({"memory_gib": 16.0}, "memory_gib 7.8 and not 16.0"),
        ({"accelerators": ()}, "accelerators"),
    ],
)
def test_another_machine_is_refused(changed: dict[str, Any], told: str) -> None:
    other = replace(MACHINE, **changed)
    with pytest.raises(IncompatibleRequest, match="another machine") as caught:
        require_machine(profile(), other)
    assert told in caught.value.message
    with pytest.raises(IncompatibleRequest):
        merged(profile(), profile(machine=other))


def test_a_little_less_memory_is_the_same_machine() -> None:
    require_machine(profile(), replace(MACHINE, memory_gib=7.6))


def edit(path: list[str | int], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit(["machin"], {}), "machin"),
        (edit(["machine", "cores"], "2"), "machine.cores"),
        (edit(["machine", "cores"], 0), "machine.cores"),
        (edit(["roles", 0, "samples"], []), "roles.0.samples"),
        (edit(["roles", 0, "samples", 0, "seconds"], []), "seconds"),
        (edit(["roles", 0, "samples", 0, "seconds"], [-1.0]), "seconds.0"),
        (edit(["roles", 0, "samples", 0, "seconds"], [float("nan")]), "seconds.0"),
        (edit(["roles", 0, "samples", 0, "at"], {"tokens": 1.0}), "different features"),
        (edit(["roles", 0, "samples", 0, "at"], {"batch": -1.0}), "batch"),
        (edit(["roles", 0, "fit", "terms", 0, "name"], "__import__"), "terms.0.name"),
        (edit(["roles", 0, "fit", "terms", 1, "name"], "batch*tokens"), "'tokens'"),
        (edit(["roles", 0, "fit", "terms", 0, "seconds"], -1.0), "terms.0.seconds"),
        (edit(["roles", 0, "fit", "residuals"], [0.0]), "4 samples and 1 residuals"),
        (edit(["roles", 0, "role"], "a\nb"), "roles.0.role"),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    document = asdict(profile())
    change(document)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInput) as caught:
        read_profile(path)
    assert told in str(caught.value)


def test_a_role_may_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_profile(profile(role(), role()), path)
    with pytest.raises(InvalidInput, match="stands twice"):
        read_profile(path)


@pytest.mark.parametrize("text", ["{}", '{"format": 2}', "[]", '{"format": "1"}'])
def test_other_formats_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(VersionMismatch, match="format"):
        read_profile(path)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no profile file"):
        read_profile(tmp_path / "none.json")
    path = tmp_path / "profile.json"
    path.write_text("{")
    with pytest.raises(InvalidInput, match="not JSON"):
        read_profile(path)
    with pytest.raises(InvalidInput, match="cannot write"):
        write_profile(profile(), tmp_path / "no" / "folder.json")
