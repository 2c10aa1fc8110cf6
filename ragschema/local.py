"""This machine as a pool: its cores for models, and itself as the node that holds vectors.

Its figures are guesses that only stand where a profile has none; a plan says which it used.
"""

from __future__ import annotations

from typing import Final

from ragschema.hardware.devices import Accelerator, Host
from ragschema.here import Machine
from ragschema.measured import Measured
from ragschema.pool import ChipPool, NodePool, Pool, with_profiles
from ragschema.profile import Profile, require_machine

#: Names of the devices, in plans and for ``--profile``.
CORE: Final = "local-core"
NODE: Final = "local-node"
#: Of one core: 8 lanes of fused multiply-add, 3 GHz, a third of the peak. Assumed.
_FLOPS_PER_S: Final = 16e9
_BYTES_PER_S: Final = 8e9
_SCAN_BYTES_PER_S: Final = 2e9


def local_pool(machine: Machine, profile: Profile | None, allow_extrapolation: bool) -> Pool:
    """Cores as accelerators, and one retrieval node beside them.

    The node's scans take milliseconds of the cores where models take seconds; what they take
    from each other is not counted.

    Args:
        profile: of this machine; None: all is modelled, roughly.

    Raises:
        IncompatibleRequest: the profile is another machine's.
    """
    memory_bytes = machine.memory_gib * 2**30
    cores = machine.cores
    core = Accelerator(CORE, _FLOPS_PER_S, memory_bytes / cores, _BYTES_PER_S / cores, _BYTES_PER_S)
    node = Host(NODE, cores, memory_bytes, _BYTES_PER_S, _SCAN_BYTES_PER_S,
                core_flops_per_s=_FLOPS_PER_S)  # fmt: skip
    pool = Pool((ChipPool(core, cores),), (NodePool(node, 1),), 1, cores)
    if profile is None:
        return pool
    require_machine(profile, machine)
    known = {
        CORE: Measured(profile, allow_extrapolation, cores=True),
        NODE: Measured(profile, allow_extrapolation),
    }
    return with_profiles(pool, known)
