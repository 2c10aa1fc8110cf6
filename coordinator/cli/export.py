"""``ragrig plan export``: a rig as manifests for Compose, Kubernetes or Ray."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import options


class Engine(enum.StrEnum):
    """Who runs the containers."""

    COMPOSE = "compose"
    KUBERNETES = "kubernetes"
    RAY = "ray"


PlanFile = Annotated[
    Path | None,
    typer.Argument(
        help="Take nodes, threads, batches and limits from this plan for cores; of a plan for"
        " other devices only batches, for a rig that has its nodes.",
        metavar="[PLAN.yaml]",
    ),
]
To = Annotated[Engine, typer.Option("--to", help="compose, kubernetes or ray.")]
Out = Annotated[
    Path | None, typer.Option(help="File to write. Default: print it.", metavar="FILE.yaml")
]
Image = Annotated[str, typer.Option(help="Container image with ragrig in it.", metavar="NAME")]
Port = Annotated[int, typer.Option(help="compose: port of this host for REST.", min=1, max=65535)]
Storage = Annotated[
    int, typer.Option(help="kubernetes: GiB for collections.", min=1, max=1_000_000)
]
StorageClass = Annotated[
    str | None,
    typer.Option(help="kubernetes: class of volumes that several pods mount.", metavar="NAME"),
]
Machines = Annotated[
    str | None,
    typer.Option(
        help="ray: machines of the cluster, the first one for the coordinator.",
        metavar="HOST,HOST",
    ),
]
SshUser = Annotated[str, typer.Option(help="ray: who logs in to the machines.", metavar="NAME")]


def export(
    to: To,
    plan: PlanFile = None,
    config: options.Config = None,
    out: Out = None,
    image: Image = "ragrig:latest",
    port: Port = 8080,
    storage: Storage = 50,
    storage_class: StorageClass = None,
    machines: Machines = None,
    ssh_user: SshUser = "ubuntu",
) -> None:
    """Write manifests for the nodes of a rig file: probes, resources, volumes, secrets by name."""
    from coordinator.cli.target import rig_of
    from coordinator.cli.up_ray import planned_on_ray
    from coordinator.export.compose import compose_text
    from coordinator.export.deployment import deployment_of
    from coordinator.export.kubernetes import Volumes, kubernetes_text, prefix_of
    from coordinator.export.plan import planned_rig
    from coordinator.export.ray import Machines, ray_text
    from ragschema.planner.plan_file import read_plan
    from ragschema.userfile import write_user_text

    rig = rig_of(config, None)
    if plan is not None:
        rig = planned_on_ray(plan, rig) if to is Engine.RAY else planned_rig(read_plan(plan), rig)
    if to is Engine.COMPOSE:
        text = compose_text(deployment_of(rig, image), port)
    elif to is Engine.RAY:
        text = ray_text(rig, image, Machines.parsed(machines, ssh_user))
    else:
        volumes = Volumes(data_gib=storage, models_gib=storage, storage_class=storage_class)
        text = kubernetes_text(deployment_of(rig, image, prefix_of(rig.name)), volumes)
    if out is None:
        print(text, end="")
    else:
        write_user_text(out, text, "out")
