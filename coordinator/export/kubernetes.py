"""A rig for Kubernetes: a deployment and a service per node, volumes, and who may reach whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coordinator.export.deployment import (
    DATA,
    KEY_FILE,
    MODELS,
    RIG_FILE,
    Deployment,
    Service,
    yaml_text,
)

#: Names of secrets that whoever runs the cluster makes.
_KEY_NAME: Final = "ragrig-api-key"
_ENV_NAME: Final = "ragrig-upstream"
_USER: Final = 10001
_START_S: Final = 300
_EVERY_S: Final = 5


@dataclass(frozen=True)
class Volumes:
    """Claims to ask for.

    Attributes:
        data_gib: collections; several pods mount them, so the class has to allow that.
        models_gib: models, filled by whoever runs the cluster.
        storage_class: None: the cluster's default.
    """

    data_gib: int = 50
    models_gib: int = 50
    storage_class: str | None = None


def prefix_of(rig_name: str) -> str:
    """In front of a service's name, so that two rigs may share a namespace."""
    return f"{rig_name}-"


def kubernetes_text(deployment: Deployment, volumes: Volumes) -> str:
    """Manifests for ``kubectl apply -f``; secrets are referred to, and not in them."""
    documents = [_rig_map(deployment), _claim(deployment, "data", volumes.data_gib, volumes)]
    if deployment.models:
        documents.append(_claim(deployment, "models", volumes.models_gib, volumes))
    for service in deployment.services:
        documents += [_workload(deployment, service), _service(deployment, service)]
    documents.append(_policy(deployment))
    return yaml_text(*documents)


def _labels(deployment: Deployment, service: Service | None = None) -> dict[str, str]:
    labels = {"app.kubernetes.io/name": "ragrig", "app.kubernetes.io/instance": deployment.name}
    if service is not None:
        labels["app.kubernetes.io/component"] = service.kind
        labels["ragrig/node"] = service.name
    return labels


def _head(
    deployment: Deployment, version: str, kind: str, name: str, service: Service | None = None
) -> dict[str, Any]:
    metadata = {
        "name": prefix_of(deployment.name) + name,
        "labels": _labels(deployment, service),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _rig_map(deployment: Deployment) -> dict[str, Any]:
    head = _head(deployment, "v1", "ConfigMap", "rig")
    return {**head, "data": {"rig.yaml": deployment.rig_yaml}}


def _claim(deployment: Deployment, name: str, size_gib: int, volumes: Volumes) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": f"{size_gib}Gi"}},
    }
    if volumes.storage_class is not None:
        spec["storageClassName"] = volumes.storage_class
    return {**_head(deployment, "v1", "PersistentVolumeClaim", name), "spec": spec}


def _workload(deployment: Deployment, service: Service) -> dict[str, Any]:
    # Two coordinators, or two nodes of one name, must not run beside each other.
    strategy = {"type": "Recreate"}
    labels = _labels(deployment, service)
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(deployment, service)],
        "volumes": _volumes(deployment, service),
    }
    if service.kind == "retrieval":
        # Shards and their replicas on different machines, where there are several.
        pod["topologySpreadConstraints"] = [_spread(deployment)]
    spec = {
        "replicas": 1,
        "strategy": strategy,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {**_head(deployment, "apps/v1", "Deployment", service.name, service), "spec": spec}


def _spread(deployment: Deployment) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {
            "matchLabels": {
                **_labels(deployment),
                "app.kubernetes.io/component": "retrieval",
            }
        },
    }


def _container(deployment: Deployment, service: Service) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": service.kind,
        "image": deployment.image,
        "command": list(service.command),
        "ports": [{"name": "serve", "containerPort": service.port}],
        **_probes(service),
        "resources": _resources(service),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(deployment, service),
    }
    made["env"] = [
        {"name": "HOME", "value": "/tmp"},  # noqa: S108  libraries want to write there
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": _ENV_NAME, "key": name}}}
            for name in service.secret_env
        ),
    ]
    return made


def _probes(service: Service) -> dict[str, Any]:
    """A process that loads models may take minutes to start; later it answers at once."""
    if service.kind == "coordinator":
        alive: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "serve"}}
        ready: dict[str, Any] = {"httpGet": {"path": "/readyz", "port": "serve"}}
    else:
        alive = ready = {"grpc": {"port": service.port}}
    often: dict[str, Any] = {"periodSeconds": _EVERY_S, "timeoutSeconds": 4}
    return {
        "startupProbe": {**alive, **often, "failureThreshold": _START_S // _EVERY_S},
        "livenessProbe": {**alive, **often, "failureThreshold": 6},
        "readinessProbe": {**ready, **often, "failureThreshold": 2},
    }


def _resources(service: Service) -> dict[str, Any]:
    cpus, memory = str(service.cpus), f"{service.memory_mib}Mi"
    made: dict[str, Any] = {"requests": {"cpu": cpus, "memory": memory}, "limits": {"cpu": cpus}}
    if service.gpus:
        made["limits"]["nvidia.com/gpu"] = str(service.gpus)
    return made


def _mounts(deployment: Deployment, service: Service) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  its own
    if service.kind == "coordinator":
        mounts.append({"name": "rig", "mountPath": RIG_FILE, "subPath": "rig.yaml"})
        mounts.append({"name": "key", "mountPath": KEY_FILE, "subPath": "api-key"})
    if service.reads_data:
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": not service.writes_data})
    if service.model_paths:
        mounts.append({"name": "models", "mountPath": MODELS, "readOnly": True})
    return mounts


def _volumes(deployment: Deployment, service: Service) -> list[dict[str, Any]]:
    prefix = prefix_of(deployment.name)
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if service.kind == "coordinator":
        volumes.append({"name": "rig", "configMap": {"name": f"{prefix}rig"}})
        volumes.append({"name": "key", "secret": {"secretName": _KEY_NAME, "defaultMode": 0o440}})
    for name, wanted in (("data", service.reads_data), ("models", bool(service.model_paths))):
        if wanted:
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": prefix + name}})
    return volumes


def _service(deployment: Deployment, service: Service) -> dict[str, Any]:
    spec = {
        "type": "ClusterIP",
        "selector": _labels(deployment, service),
        "ports": [{"name": "serve", "port": service.port, "targetPort": "serve"}],
    }
    return {**_head(deployment, "v1", "Service", service.name, service), "spec": spec}


def _policy(deployment: Deployment) -> dict[str, Any]:
    """Nodes neither encrypt nor ask for keys: only pods of this rig may reach them."""
    nodes = {"key": "app.kubernetes.io/component", "operator": "In", "values": ["llm", "retrieval"]}
    spec = {
        "podSelector": {"matchLabels": _labels(deployment), "matchExpressions": [nodes]},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": _labels(deployment)}}]}],
    }
    return {**_head(deployment, "networking.k8s.io/v1", "NetworkPolicy", "nodes"), "spec": spec}
