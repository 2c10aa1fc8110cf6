"""The containers that a rig needs: commands, mounts, resources, and a rig file with their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final

import yaml

from coordinator.supervisor.commands import Programs
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.specs import node_specs
from ragschema.errors import InvalidInput
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

DATA: Final = "/data"
MODELS: Final = "/models"
RIG_FILE: Final = "/etc/ragrig/rig.yaml"
KEY_FILE: Final = "/run/secrets/ragrig-api-key"
REST_PORT: Final = 8080
NODE_PORT: Final = 7100
_ANYWHERE: Final = "0.0.0.0"  # noqa: S104  inside a container, whose network is its own
_COORDINATOR: Final = "coordinator"
_PYTHON: Final = "python3"
#: Beside weights and KV: interpreter, libraries, buffers.
_BASE_MIB: Final = 1024
_MODEL_MIB: Final = 2048
#: Folders and files of a node that are models, or belong to one.
_PATHS: Final = ("embedder", "generator", "reranker", "rewrite_template")
_HF: Final = "hf:"
#: Options that a supervisor adds, for processes on its own machine.
_SUPERVISED: Final = ("--ready-file", "--parent-pid")


@dataclass(frozen=True)
class Service:
    """One container.

    Attributes:
        name: of the node in the rig; where others reach it.
        kind: ``coordinator``, ``llm`` or ``retrieval``.
        memory_mib: to ask for; scanned files come on top, in the page cache.
        gpus: of the engine that its model runs on.
        reads_data, writes_data: whether the collections are mounted.
        model_paths: in the container, of models to mount.
        secret_env: environment variables whose values are secrets.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    port: int
    cpus: int
    memory_mib: int
    gpus: int = 0
    reads_data: bool = False
    writes_data: bool = False
    model_paths: tuple[str, ...] = ()
    secret_env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """A whole rig.

    Attributes:
        rig_yaml: the rig file of the coordinator, in which every node has an address.
        models: folder in a container by the folder here that belongs there.
    """

    name: str
    image: str
    services: tuple[Service, ...]
    rig_yaml: str
    models: Mapping[str, str]

    @property
    def coordinator(self) -> Service:
        return self.services[0]


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


class _PlainDumper(yaml.SafeDumper):
    """Writes shared values out in full, and texts of several lines as blocks."""

    yaml_representers: ClassVar[dict[Any, Any]] = {
        **yaml.SafeDumper.yaml_representers,
        str: _text,
    }

    def ignore_aliases(self, data: object) -> bool:
        return True


def yaml_text(*documents: Any) -> str:
    """Plain YAML, one document after the other."""
    return yaml.dump_all(documents, Dumper=_PlainDumper, sort_keys=False, width=100)


def deployment_of(rig: RigConfig, image: str, prefix: str = "") -> Deployment:
    """What has to run.

    Args:
        rig: with absolute paths.
        prefix: of the names under which services reach each other.

    Raises:
        InvalidInput: a node needs what no container can be given, or an image's name is none.
    """
    check_image(image)
    names = [n.name for n in rig.llm_nodes] + [n.name for n in rig.retrieval_nodes]
    if _COORDINATOR in names:
        raise InvalidInput(
            f"a node is called {_COORDINATOR!r}, as the coordinator's own container is",
            field="name",
            hint="give it another name",
        )
    inside, models = in_containers(rig)
    inside = replace(
        inside,
        coordinator=replace(rig.coordinator, host=_ANYWHERE, port=REST_PORT, api_key_file=KEY_FILE),
    )
    run = RunDir.of(DATA)
    commands = {
        spec.name: _unsupervised(spec.command(NODE_PORT))
        for spec in node_specs(inside, run, _programs())
    }
    services = (
        _coordinator(),
        *(_llm(node, commands[node.name]) for node in inside.llm_nodes if node.address is None),
        *(
            _retrieval(node, commands[node.name])
            for node in inside.retrieval_nodes
            if node.address is None
        ),
    )
    return Deployment(rig.name, image, services, _addressed(inside, prefix), models)


def check_image(image: str) -> None:
    """Raises InvalidInput when it is no name of an image."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:@-]{0,254}", image):
        raise InvalidInput(
            f"{image!r} is no image", field="image", hint="such as registry.local/ragrig:0.1.0"
        )


def in_containers(rig: RigConfig) -> tuple[RigConfig, dict[str, str]]:
    """The rig with paths as its containers see them, and those by the path here.

    Raises:
        InvalidInput: a node needs a card of one machine.
    """
    models = _model_folders(rig.llm_nodes)
    inside = replace(
        rig,
        data_dir=DATA,
        llm_nodes=tuple(_contained(node, models) for node in rig.llm_nodes),
        retrieval_nodes=tuple(_scanning(node) for node in rig.retrieval_nodes),
    )
    return inside, models


def _programs() -> Programs:
    def program(package: str) -> tuple[str, ...]:
        return (_PYTHON, "-m", package, "serve")

    return Programs(program("llm_node"), program("retrieval_node"), program("coordinator"))


def _unsupervised(command: tuple[str, ...]) -> tuple[str, ...]:
    """Without the options that tie a process to a supervisor."""
    kept: list[str] = []
    parts = iter(command)
    for part in parts:
        if part in _SUPERVISED:
            next(parts)
        else:
            kept.append(part)
    return tuple(kept)


def _coordinator() -> Service:
    command = (*_programs().coordinator, "--rig", RIG_FILE, "--api-key-file", KEY_FILE)
    return Service(
        _COORDINATOR, _COORDINATOR, command, REST_PORT, 1, _BASE_MIB, reads_data=True,
        writes_data=True,
    )  # fmt: skip


def _llm(node: LlmNodeConfig, command: tuple[str, ...]) -> Service:
    on_gpu = (node.engine.device or "").startswith("cuda")
    return Service(
        node.name,
        "llm",
        command,
        NODE_PORT,
        node.threads,
        _BASE_MIB + _MODEL_MIB + (0 if on_gpu else node.kv_mib or 0),
        gpus=int(on_gpu),
        reads_data="--data" in command,
        model_paths=tuple(value.removeprefix(_HF) for _, value in _paths_of(node)),
        secret_env=(node.api_key_env,) if node.api_key_env else (),
    )


def _retrieval(node: RetrievalNodeConfig, command: tuple[str, ...]) -> Service:
    on_gpu = node.backend == "faiss-gpu"
    return Service(
        node.name, "retrieval", command, NODE_PORT, node.threads, _BASE_MIB, gpus=int(on_gpu),
        reads_data=True,
    )  # fmt: skip


def _contained(node: LlmNodeConfig, models: Mapping[str, str]) -> LlmNodeConfig:
    if node.address is not None:
        return node
    changed = {name: models_path(value, models) for name, value in _paths_of(node)}
    return replace(node, host=_ANYWHERE, port=NODE_PORT, cpus=(), **changed)  # type: ignore[arg-type]


def _scanning(node: RetrievalNodeConfig) -> RetrievalNodeConfig:
    if node.address is not None:
        return node
    if str(node.device) not in ("emulator", "verilator"):
        raise InvalidInput(
            f"node {node.name} needs the card {node.device}, which a manifest cannot give it",
            field="retrieval_nodes.device",
            hint="run that node on its host and name its address in the rig file",
        )
    # Processors and NUMA nodes are the machine's that the file was written for.
    return replace(node, host=_ANYWHERE, port=NODE_PORT, cpus=(), numa_node=None)


def models_path(value: str, models: Mapping[str, str]) -> str:
    """The same model inside a container; ``hf:`` stays in front."""
    head = _HF if value.startswith(_HF) else ""
    return head + models[value.removeprefix(_HF)]


def _paths_of(node: LlmNodeConfig) -> list[tuple[str, str]]:
    """Options of a node that name a folder or a file here."""
    given = ((name, getattr(node, name, None)) for name in _PATHS)
    return [
        (name, value)
        for name, value in given
        if value is not None and value.removeprefix(_HF).startswith("/")
    ]


def _model_folders(nodes: Iterable[LlmNodeConfig]) -> dict[str, str]:
    """Paths in a container by paths here; two with the same last name get different ones."""
    found: dict[str, str] = {}
    for node in nodes:
        for _, value in _paths_of(node) if node.address is None else ():
            source = value.removeprefix(_HF)
            if source in found:
                continue
            name, number = Path(source).name, 1
            while str(PurePosixPath(MODELS, name)) in found.values():
                number += 1
                name = f"{Path(source).name}-{number}"
            found[source] = str(PurePosixPath(MODELS, name))
    return found


def _addressed(rig: RigConfig, prefix: str) -> str:
    def address(node: LlmNodeConfig | RetrievalNodeConfig) -> str:
        return node.address or f"{prefix}{node.name}:{NODE_PORT}"

    whole = replace(
        rig,
        llm_nodes=tuple(replace(n, address=address(n)) for n in rig.llm_nodes),
        retrieval_nodes=tuple(replace(n, address=address(n)) for n in rig.retrieval_nodes),
    )
    return yaml_text(asdict(whole))
