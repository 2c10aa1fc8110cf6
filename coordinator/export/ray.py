"""A rig for Ray's cluster launcher: machines, a container on each, and the rig file on the head."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from coordinator.export.deployment import (
    DATA,
    KEY_FILE,
    check_image,
    in_containers,
    yaml_text,
)
from coordinator.ray_engine.placement import needs_of, on_ray
from ragschema.errors import InvalidInput
from ragschema.rig import RigConfig

_CONTAINER: Final = "ragrig"
_PORT: Final = 6379
_RIG: Final = "~/rig.yaml"
#: Ray tells nobody that it is used, and what it starts yields to nothing else.
_SETTINGS: Final = "RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0"
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Machines:
    """Where the cluster is to run.

    Attributes:
        head: where the coordinator runs; it holds nodes too.
        user: who may log in to all of them, with an SSH key.
    """

    head: str
    workers: tuple[str, ...]
    user: str

    @classmethod
    def parsed(cls, typed: str | None, user: str) -> Self:
        """From ``HOST,HOST``.

        Raises:
            InvalidInput: none is named, one twice, or one that is no host.
        """
        found = [part.strip() for part in (typed or "").split(",") if part.strip()]
        wrong = [part for part in found if not _HOST.fullmatch(part)]
        if wrong or not found or len(set(found)) != len(found):
            said = f"{wrong[0]!r} is no host" if wrong else "machines are named, each once"
            raise InvalidInput(said, field="machines", hint="--machines 10.0.0.1,10.0.0.2")
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
            raise InvalidInput(f"{user!r} is no user", field="ssh_user", hint="such as ubuntu")
        return cls(found[0], tuple(found[1:]), user)


def ray_text(rig: RigConfig, image: str, machines: Machines) -> str:
    """A cluster file for ``ray up``; collections and models lie at the same path everywhere.

    Args:
        rig: with absolute paths.

    Raises:
        InvalidInput: a node needs a card of one machine, or an image's name is none.
    """
    check_image(image)
    contained, models = in_containers(rig)
    inside = on_ray(contained)
    key_file = rig.coordinator.api_key_file
    if key_file is not None:
        inside = replace(inside, coordinator=replace(inside.coordinator, api_key_file=KEY_FILE))
    document = {
        "cluster_name": rig.name,
        "max_workers": len(machines.workers),
        "provider": {
            "type": "local",
            "head_ip": machines.head,
            "worker_ips": list(machines.workers),
        },
        "auth": {"ssh_user": machines.user},
        "docker": {
            "image": image,
            "container_name": _CONTAINER,
            "pull_before_run": False,
            "run_options": _run_options(rig, models),
            "head_run_options": [] if key_file is None else [_mounted(key_file, KEY_FILE)],
        },
        "head_setup_commands": [_written(yaml_text(asdict(inside)))],
        "head_start_ray_commands": [
            "ray stop",
            f"{_SETTINGS} ray start --head --port={_PORT} --include-dashboard=false"
            " --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            f"{_SETTINGS} ray start --address=$RAY_HEAD_IP:{_PORT}",
        ],
    }
    return _heading(inside) + yaml_text(document)


def _heading(rig: RigConfig) -> str:
    total: Counter[str] = Counter()
    for need in needs_of(rig):
        total.update(need.resources)
    wants = ", ".join(f"{amount:g} {name}" for name, amount in sorted(total.items()))
    return (
        f"# Nodes of the rig {rig.name} on Ray; all of them together take {wants}.\n"
        "# ray up FILE --no-config-cache --yes\n"
        f"# ray exec FILE 'ragrig up -c {_RIG} --engine ray --ray-address auto'\n"
    )


def _run_options(rig: RigConfig, models: Mapping[str, str]) -> list[str]:
    # Variables are named, and taken from each machine's environment.
    secrets = sorted({n.api_key_env for n in rig.llm_nodes if n.api_key_env and not n.address})
    return [
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--init",
        f"--volume={rig.data_dir}:{DATA}",
        *(_mounted(here, there) for here, there in models.items()),
        *(f"--env={name}" for name in secrets),
    ]


def _mounted(here: str, there: str) -> str:
    return f"--volume={here}:{there}:ro"


def _written(text: str) -> str:
    """A shell command that writes the file, whatever is in it."""
    return f"printf %s {shlex.quote(text)} > {_RIG}"
