"""A rig for ``docker compose``, in one file."""

from __future__ import annotations

from typing import Any, Final

from coordinator.export.deployment import (
    DATA,
    KEY_FILE,
    REST_PORT,
    RIG_FILE,
    Deployment,
    Service,
    yaml_text,
)

_KEY: Final = "api-key"
_GRPC_CHECK: Final = (
    "import grpc\n"
    "from grpc_health.v1 import health_pb2 as p, health_pb2_grpc as g\n"
    "with grpc.insecure_channel('127.0.0.1:{port}') as c:\n"
    "    r = g.HealthStub(c).Check(p.HealthCheckRequest(), timeout=4)\n"
    "raise SystemExit(r.status != p.HealthCheckResponse.SERVING)\n"
)
_REST_CHECK: Final = (
    "import urllib.request as r\nr.urlopen('http://127.0.0.1:{port}/readyz', timeout=4)\n"
)


def compose_text(deployment: Deployment, published_port: int) -> str:
    """A Compose file; collections are in a volume, models stay where they are.

    Args:
        published_port: of the host, on its loopback interface, for REST.
    """
    nodes = [s.name for s in deployment.services if s.kind != "coordinator"]
    document = {
        "name": deployment.name,
        "services": {
            s.name: _service(deployment, s, nodes, published_port) for s in deployment.services
        },
        # Nodes neither encrypt nor ask for keys: nobody else may reach them.
        "networks": {"nodes": {"internal": True}, "edge": {}},
        "volumes": {"data": {}},
        "configs": {"rig": {"content": _plain(deployment.rig_yaml)}},
        "secrets": {_KEY: {"file": "./api.key"}},
    }
    return yaml_text(document)


def _plain(text: str) -> str:
    """Compose would replace $NAME by a variable."""
    return text.replace("$", "$$")


def _service(
    deployment: Deployment, service: Service, nodes: list[str], published_port: int
) -> dict[str, Any]:
    edge = service.kind == "coordinator"
    check = (_REST_CHECK if edge else _GRPC_CHECK).format(port=service.port)
    made: dict[str, Any] = {
        "image": deployment.image,
        "command": [_plain(part) for part in service.command],
        "init": True,
        "restart": "unless-stopped",
        "stop_grace_period": "20s",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "networks": ["nodes", "edge"] if edge or service.secret_env else ["nodes"],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _plain(check)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "300s",
        },
        "deploy": {"resources": _resources(service)},
    }
    if edge:
        made["ports"] = [f"127.0.0.1:{published_port}:{REST_PORT}"]
        made["configs"] = [{"source": "rig", "target": RIG_FILE}]
        made["secrets"] = [{"source": _KEY, "target": KEY_FILE}]
        made["depends_on"] = {name: {"condition": "service_healthy"} for name in nodes}
    volumes = _volumes(deployment, service)
    if volumes:
        made["volumes"] = volumes
    if service.secret_env:
        made["environment"] = {
            name: f"${{{name}:?set it to the key}}" for name in service.secret_env
        }
    return made


def _volumes(deployment: Deployment, service: Service) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = []
    if service.reads_data:
        read_only = not service.writes_data
        volumes.append({"type": "volume", "source": "data", "target": DATA, "read_only": read_only})
    if service.model_paths:
        volumes += [
            {"type": "bind", "source": here, "target": there, "read_only": True}
            for here, there in deployment.models.items()
            if there in service.model_paths
        ]
    return volumes


def _resources(service: Service) -> dict[str, Any]:
    reserved: dict[str, Any] = {"memory": f"{service.memory_mib}M"}
    if service.gpus:
        reserved["devices"] = [{"driver": "nvidia", "count": service.gpus, "capabilities": ["gpu"]}]
    return {"limits": {"cpus": str(service.cpus)}, "reservations": reserved}
