"""Measured latencies of a machine: the file that ``ragrig profile`` writes and planners read.

A profile is one machine's. It has a ``RoleProfile`` for each thing that was measured, such as the
PQ scan of one backend: every repeat of every point, and a fitted model that tells the seconds of
one call from its features (``batch``, ``tokens``, ...)::

    profile = read_profile(Path("profile.json"))
    require_machine(profile, this_machine())
    scan = profile.find("pq_scan", variant="simd")
    scan.predict({"batch": 8, "nprobe": 32, "codes": 51_200})
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound, VersionMismatch
from ragschema.here import Machine, Software
from ragschema.profile_fit import Fit, Prediction, evaluate, fit_terms
from ragschema.userfile import first_problem, read_user_text

FORMAT: Final = 1
#: Repeats of a point that a merge keeps, the newest ones.
MAX_REPEATS: Final = 200
_STRICT = ConfigDict(extra="forbid", strict=True)
_HINT: Final = "measure again with `ragrig profile`"
#: Software differences that say nothing about speed by themselves.
_UNTIMED: Final = frozenset({"commit"})

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+ -]{1,200}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]
Features = Annotated[Mapping[Name, Annotated[Finite, Field(ge=0)]], Field(min_length=1)]


@dataclass(frozen=True)
class Sample:
    """One point that was measured.

    Attributes:
        at: its features by name.
        seconds: every repeat after the warm-up, as they came.
    """

    __pydantic_config__ = _STRICT
    at: Features
    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100_000)]

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))

    @property
    def dispersion(self) -> float:
        """Distance of the quartiles over the median: 0.1 says the middle half lies within 10 %."""
        low, high = np.quantile(self.seconds, (0.25, 0.75)).tolist()
        return float(high - low) / self.median_s


@dataclass(frozen=True)
class RoleProfile:
    """One role on one machine, measured under one set of conditions.

    Attributes:
        role: ``embed``, ``index_scan``, ``pq_scan``, ``retrieval_call``, ``generate``,
            ``prefill``, ``decode``, ``mixed``, ``crowded``,
            ``kv_transfer``, ``rerank`` or ``coordinator``.
        variant: what plays it: a backend, or a model.
        threads: of the process that was measured.
        about: conditions that were the same for all samples, such as ``dim``.
        measured_at: ISO 8601, of the newest samples.
        load_before: processes that wanted to run on the machine before it began; near its
            cores, the figures are of a busy machine.
        fit: a model of the samples' medians.
    """

    __pydantic_config__ = _STRICT
    role: Name
    variant: Name
    threads: Annotated[int, Field(ge=1, le=1024)]
    about: Mapping[Name, Name | Finite]
    software: Software
    measured_at: Name
    load_before: Annotated[Finite, Field(ge=0)]
    samples: Annotated[tuple[Sample, ...], Field(min_length=1, max_length=100_000)]
    fit: Fit

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same thing when it is measured again."""
        return (self.role, self.variant, self.threads, tuple(sorted(self.about.items())))

    def range_of(self, feature: str) -> tuple[float, float]:
        """Smallest and largest measured value of a feature.

        Raises:
            InvalidInput: it has no such feature.
        """
        if feature not in self.samples[0].at:
            raise InvalidInput(
                f"{self.role} was not measured over {feature!r}",
                field=feature,
                hint=f"it has {', '.join(self.samples[0].at)}",
            )
        values = [sample.at[feature] for sample in self.samples]
        return min(values), max(values)

    def predict(self, at: Mapping[str, float], allow_extrapolation: bool = False) -> Prediction:
        """Seconds of one call, with the interval that the samples' residuals give.

        Outside the measured range the interval widens with the distance.

        Raises:
            InvalidInput: features are missing or unknown.
            IncompatibleRequest: outside the range without ``allow_extrapolation``.
        """
        if set(at) != set(self.samples[0].at):
            raise InvalidInput(
                f"{self.role} has the features {', '.join(self.samples[0].at)},"
                f" not {', '.join(at)}",
                field="at",
            )
        outside = 1.0
        for name, value in at.items():
            low, high = self.range_of(name)
            if low <= value <= high:
                continue
            if not allow_extrapolation:
                raise IncompatibleRequest(
                    f"{self.role} ({self.variant}) was measured for {name} from {low:g} to"
                    f" {high:g}, not for {value:g}",
                    field=name,
                    hint="measure there too, or pass --allow-extrapolation",
                )
            outside = max(outside, _times_outside(value, low, high))
        return self.fit.predict(at, [sample.at for sample in self.samples], outside)


def _times_outside(value: float, low: float, high: float) -> float:
    if value > high:
        return value / high if high > 0 else 1.0 + value
    return (1.0 + low) / (1.0 + value)


@dataclass(frozen=True)
class Profile:
    """All that was measured on one machine.

    Attributes:
        roles: no two with the same ``key``.
        missing: why a role, or ``role variant``, could not be measured.
    """

    __pydantic_config__ = _STRICT
    format: int
    machine: Machine
    roles: tuple[RoleProfile, ...]
    missing: Mapping[Name, Annotated[str, Field(max_length=1000)]] = field(default_factory=dict)

    def find(
        self, role: str, variant: str | None = None, threads: int | None = None
    ) -> RoleProfile:
        """The measurement of a role, the newest where several fit.

        Raises:
            NotFound: there is none; it says why where the profile knows.
        """
        fitting = [
            each
            for each in self.roles
            if each.role == role
            and variant in (None, each.variant)
            and threads in (None, each.threads)
        ]
        if not fitting:
            named = (f"{role} {variant}", role)
            why = next((f": {self.missing[name]}" for name in named if name in self.missing), "")
            wanted = f"{role} ({variant})" if variant else role
            raise NotFound(f"the profile has no {wanted}{why}", field="profile", hint=_HINT)
        return max(fitting, key=lambda each: each.measured_at)


def fitted(role: RoleProfile, terms: tuple[str, ...]) -> RoleProfile:
    """The same samples with a new model of these terms."""
    medians = [sample.median_s for sample in role.samples]
    noise = float(np.median([sample.dispersion for sample in role.samples]))
    points = [sample.at for sample in role.samples]
    return replace(role, fit=fit_terms(points, medians, terms, noise))


def merged(old: Profile, new: Profile) -> Profile:
    """Both; where the same was measured twice by the same software, with the repeats of both.

    Raises:
        IncompatibleRequest: they are of different machines.
    """
    require_machine(old, new.machine)
    before = {role.key: role for role in old.roles}
    after = {role.key: _joined(before.get(role.key), role) for role in new.roles}
    both = (*before.values(), *after.values())
    measured = {role.role for role in both} | {f"{role.role} {role.variant}" for role in both}
    said = {name.split()[0] for name in new.missing}
    before_missing = {n: why for n, why in old.missing.items() if n.split()[0] not in said}
    missing = {
        name: why for name, why in {**before_missing, **new.missing}.items() if name not in measured
    }
    return Profile(FORMAT, new.machine, tuple({**before, **after}.values()), missing)


def _joined(old: RoleProfile | None, new: RoleProfile) -> RoleProfile:
    if old is None or software_differences(old.software, new.software):
        return new  # other software: the old figures say nothing about it
    known = {_point(sample): sample for sample in old.samples}
    for sample in new.samples:
        earlier = known.get(_point(sample))
        seconds = (*(earlier.seconds if earlier else ()), *sample.seconds)
        known[_point(sample)] = replace(sample, seconds=seconds[-MAX_REPEATS:])
    whole = replace(new, samples=tuple(known.values()))
    return fitted(whole, tuple(term.name for term in new.fit.terms))


def _point(sample: Sample) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(sample.at.items()))


def require_machine(profile: Profile, machine: Machine) -> None:
    """Raises IncompatibleRequest when the profile is another machine's, saying in what."""
    mine, its = asdict(machine), asdict(profile.machine)
    # Part of the memory may be taken away by firmware or a container's limit.
    close = abs(mine.pop("memory_gib") / its.pop("memory_gib") - 1) < 0.1
    differing = [name for name in mine if mine[name] != its[name]]
    if not close:
        differing.append("memory_gib")
    if differing:
        told = ", ".join(
            f"{name} {getattr(profile.machine, name)!r} and not {getattr(machine, name)!r}"
            for name in differing
        )
        raise IncompatibleRequest(
            f"the profile was measured on another machine: {told}", field="profile", hint=_HINT
        )


def software_differences(one: Software, other: Software) -> tuple[str, ...]:
    """What differs and may change speed, such as ``torch 2.13.0 -> 2.14.0``."""
    pairs = [
        (name, getattr(one, name), getattr(other, name))
        for name in ("ragrig", "protocol", "commit", "python")
        if name not in _UNTIMED
    ]
    names = sorted({*one.libraries, *other.libraries})
    pairs += [(name, one.libraries.get(name), other.libraries.get(name)) for name in names]
    return tuple(f"{name} {a} -> {b}" for name, a, b in pairs if a != b)


def stale(profile: Profile, software: Software) -> dict[str, tuple[str, ...]]:
    """Roles that other software was measured with, and what differs, by ``role variant``."""
    found = {
        f"{role.role} {role.variant}": software_differences(role.software, software)
        for role in profile.roles
    }
    return {name: differences for name, differences in found.items() if differences}


def read_profile(path: Path) -> Profile:
    """Checks a profile file.

    Raises:
        NotFound: there is none.
        VersionMismatch: it has another format.
        InvalidInput: naming the key that is wrong.
    """
    text = read_user_text(path, "profile", "make one with `ragrig profile`")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}", field="profile", hint=_HINT) from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise VersionMismatch(
            f"{path} has the format {found!r}, this release reads {FORMAT}",
            field="format",
            hint=_HINT,
        )
    try:
        profile = TypeAdapter(Profile).validate_json(text)
    except ValidationError as error:
        raise first_problem(error, str(path), Profile, _HINT) from error
    _check(profile, path)
    return profile


def _check(profile: Profile, path: Path) -> None:
    keys = [role.key for role in profile.roles]
    for number, role in enumerate(profile.roles):
        where = f"roles.{number}"
        names = set(role.samples[0].at)
        if keys.index(role.key) != number:
            raise InvalidInput(f"{path}: {role.role} stands twice", field=where, hint=_HINT)
        if any(set(sample.at) != names for sample in role.samples):
            raise InvalidInput(
                f"{path}: samples of {role.role} have different features", field=where, hint=_HINT
            )
        if len(role.fit.residuals) != len(role.samples):
            raise InvalidInput(
                f"{path}: {role.role} has {len(role.samples)} samples and"
                f" {len(role.fit.residuals)} residuals",
                field=f"{where}.fit.residuals",
                hint=_HINT,
            )
        try:
            for term in role.fit.terms:
                evaluate(term.name, role.samples[0].at)
        except InvalidInput as error:
            raise InvalidInput(
                f"{path}: {role.role}: {error.message}", field=f"{where}.fit.terms", hint=_HINT
            ) from error


def write_profile(profile: Profile, path: Path) -> None:
    """Replaces the file in one step.

    Raises:
        InvalidInput: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(json.dumps(asdict(profile), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InvalidInput(
            f"cannot write {path}: {error}", field="out", hint="name a file that can be written"
        ) from error
