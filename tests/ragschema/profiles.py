"""Profiles for tests, of calls whose seconds are given by a formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from ragschema.here import Machine, Software
from ragschema.profile import FORMAT, Profile, RoleProfile, Sample, fitted
from ragschema.profile_fit import fit_terms

MACHINE = Machine("made up", 2, 16.0, "avx2")
SOFTWARE = Software("0.1.0", 1, None, "3.11.2", {})


def role(
    name: str,
    variant: str,
    over: Mapping[str, Sequence[float]],
    seconds: Callable[..., float],
    terms: tuple[str, ...],
    noise: float = 0.0,
) -> RoleProfile:
    """Every combination of features, three repeats each, ``noise`` apart."""
    samples = []
    for values in itertools.product(*over.values()):
        at = dict(zip(over, map(float, values), strict=True))
        once = seconds(**at)
        samples.append(Sample(at, (once * (1 - noise), once, once * (1 + noise))))
    nothing = fit_terms([samples[0].at], [1.0], ("1",))
    bare = RoleProfile(
        name, variant, 2, {}, SOFTWARE, "2026-01-01T00:00:00Z", 0.0, tuple(samples), nothing
    )
    return fitted(bare, terms)


def profile(*roles: RoleProfile) -> Profile:
    """Of a made-up machine."""
    return Profile(FORMAT, MACHINE, roles)
