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
    """

    profile: Profile
    allow_extrapolation: bool = False

    def knows(self, role: str, variant: str | None = None) -> bool:
        """Whether a role was measured, played by a variant (a model or a backend)."""
        return self._find(role, variant) is not None

    def seconds(self, role: str, variant: str | None, at: Mapping[str, float]) -> Prediction | None:
        """Of one call; None: outside the range, and extrapolation is not allowed.

        Args:
            at: everything that the caller knows of the call; the measurement takes its features.

        Raises:
            InvalidInput: the role was measured over a feature that the caller does not know.
        """
        found = self._find(role, variant)
        assert found is not None, "asked after knows"
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

    def _find(self, role: str, variant: str | None) -> RoleProfile | None:
        try:
            return self.profile.find(role, variant)
        except NotFound:
            return None
