"""A device's profile as the planner asks it: seconds of one call, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound
from ragschema.profile import Profile, RoleProfile
from ragschema.profile_fit import Prediction


@dataclass(frozen=True)
class Measured:
    """What was measured on a device.

    Attributes:
        profile: of the machine that the device stands for.
        allow_extrapolation: answer outside the measured range too, with a wider interval.
        cores: the device is a core of the machine: n of them are one process with n threads,
            and not n replicas.
    """

    profile: Profile
    allow_extrapolation: bool = False
    cores: bool = False

    def knows(self, role: str, variant: str | None = None) -> bool:
        """Whether a role was measured, played by a variant (a model or a backend)."""
        return self._find(role, variant, None) is not None

    def seconds(
        self, role: str, variant: str | None, at: Mapping[str, float], devices: int = 1
    ) -> Prediction | None:
        """Of one call; None: outside the range, and extrapolation is not allowed; or not
        measured with so many threads.

        Args:
            at: everything that the caller knows of the call; the measurement takes its features.
            devices: that answer it together; of cores, threads of one process.

        Raises:
            InvalidInput: the role was measured over a feature that the caller does not know.
        """
        found = self._find(role, variant, devices if self.cores else None)
        if found is None:
            assert self.knows(role, variant), "asked after knows"
            return None
        features = found.samples[0].at
        for name in features:
            if name not in at:
                raise InvalidInput(
                    f"{role} was measured over {name!r}, which a plan cannot tell",
                    field="profile",
                    hint=f"measure it over {', '.join(at)}",
                )
        try:
            return found.predict({name: at[name] for name in features}, self.allow_extrapolation)
        except IncompatibleRequest:
            return None

    def about(self, role: str, variant: str, name: str) -> float | None:
        """A condition under which a role was measured; None: it was not, or says nothing of it."""
        found = self._find(role, variant, None)
        value = None if found is None else found.about.get(name)
        return value if isinstance(value, float | int) else None

    def quickest(self, role: str, at: Mapping[str, float]) -> Prediction | None:
        """Of all that was measured in a role, such as several backends, the quickest."""
        names = dict.fromkeys(r.variant for r in self.profile.roles if r.role == role)
        found = [self.seconds(role, name, at) for name in names]
        return min((f for f in found if f is not None), key=lambda f: f.seconds, default=None)

    def _find(self, role: str, variant: str | None, threads: int | None) -> RoleProfile | None:
        try:
            return self.profile.find(role, variant, threads)
        except NotFound:
            return None
