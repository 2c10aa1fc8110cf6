"""What a plan says of the time of stages that share cores: the shares of a node's roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from ragschema.llm_rig import RoleShares
from ragschema.planner.plan_file import StoredGroup, StoredPlan

#: Whose time a stage takes, where its node has that role.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "prefill": ("generate", "prefill"),
    "decode": ("generate", "decode"),
    "rerank": ("rerank",),
    "rewrite_prefill": ("rewrite",),
    "rewrite_decode": ("rewrite",),
}
_LEAST: Final = 0.001
_MOST: Final = 1000.0


def shares_for(
    group: StoredGroup, roles: Sequence[str], plan: StoredPlan, own: RoleShares
) -> RoleShares:
    """Shares in proportion to the time that one request needs of each role; 1 in the mean.

    That is a stage's time over its batch, at the lowest load the plan tells, where least of
    it is waiting. A role without a stage, such as embed, keeps 1.

    Args:
        roles: of the node that runs the group.
        own: of the rig file, which hold where the plan tells no times.
    """
    needed_s: dict[str, float] = {}
    times_s = min(plan.points, key=lambda point: point.get("load", 0.0), default={})
    for stage in group.stages:
        role = next((r for r in _ROLES.get(stage.name, ()) if r in roles), None)
        stage_s = times_s.get(f"stage_s.{stage.name}")
        if role is None or not stage_s or stage_s <= 0:
            return replace(RoleShares(), **{r: s for r, s in own.given().items() if r in roles})
        needed_s[role] = needed_s.get(role, 0.0) + stage_s / stage.batch
    if len(needed_s) < 2:
        return RoleShares()
    mean_s = sum(needed_s.values()) / len(needed_s)
    shares = {role: round(time_s / mean_s, 3) for role, time_s in needed_s.items()}
    return replace(
        RoleShares(), **{role: min(_MOST, max(_LEAST, share)) for role, share in shares.items()}
    )
