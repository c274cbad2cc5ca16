"""KubeRay's RayJob, RayService and RayCluster: what they promise, and where they are malformed.

KubeRay's own schema is its operator's to ship, two megabytes of pods' fields. The checks here are ours: the fields of
``ray.io/v1`` that concern Ray, with their types, none unknown; of a pod only what decides where it runs and on what.
Source of the names: https://docs.ray.io/en/master/kuberay/references/api.html (KubeRay 1.6).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search.cluster.given import listing, mapping

KINDS = ("RayJob", "RayService", "RayCluster")
STORAGE = "carpal/storage"
"""The annotation that names where studies lie."""

_CLUSTER_AT = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
_SPOT = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
_SPEC: dict[str, dict[str, type | tuple[type, ...]]] = {
    "RayJob": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "clusterSelector": dict,
        "deletionStrategy": dict,
        "entrypoint": str,
        "entrypointNumCpus": (int, float),
        "entrypointNumGpus": (int, float),
        "entrypointResources": str,
        "jobId": str,
        "managedBy": str,
        "metadata": dict,
        "rayClusterSpec": dict,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "submitterConfig": dict,
        "submitterPodTemplate": dict,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "RayService": {
        "excludeHeadPodFromServeSvc": bool,
        "rayClusterConfig": dict,
        "rayClusterDeletionDelaySeconds": int,
        "serveConfigV2": str,
        "serveService": dict,
        "upgradeStrategy": dict,
    },
    "RayCluster": {
        "authOptions": dict,
        "autoscalerOptions": dict,
        "enableInTreeAutoscaling": bool,
        "gcsFaultToleranceOptions": dict,
        "headGroupSpec": dict,
        "headServiceAnnotations": dict,
        "managedBy": str,
        "rayVersion": str,
        "suspend": bool,
        "workerGroupSpecs": list,
    },
    "head": {
        "enableIngress": bool,
        "headService": dict,
        "labels": dict,
        "rayStartParams": dict,
        "resources": dict,
        "serviceType": str,
        "template": dict,
    },
    "worker": {
        "groupName": str,
        "idleTimeoutSeconds": int,
        "labels": dict,
        "maxReplicas": int,
        "minReplicas": int,
        "numOfHosts": int,
        "rayStartParams": dict,
        "replicas": int,
        "resources": dict,
        "scaleStrategy": dict,
        "suspend": bool,
        "template": dict,
    },
}


@dataclass(frozen=True, kw_only=True)
class KubeRay:
    """What a manifest says about machines; `head` and `groups` hold the fields of `search.cluster.file.Pool`."""

    head: dict[str, Any]
    groups: tuple[dict[str, Any], ...]
    storage: str
    images: tuple[str, ...]
    ray_version: str


def cluster_spec(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The RayCluster inside a RayJob or a RayService, or the RayCluster's own."""
    spec = mapping(raw.get("spec"))
    at = _CLUSTER_AT.get(str(raw.get("kind")))
    return mapping(spec.get(at)) if at else spec


def read_kuberay(raw: Mapping[str, Any]) -> KubeRay:
    """Read a manifest as far as it is well formed; `malformed` says the rest."""
    cluster = cluster_spec(raw)
    head, groups = mapping(cluster.get("headGroupSpec")), cluster.get("workerGroupSpecs")
    workers = [mapping(group) for group in listing(groups)]
    return KubeRay(
        head=_pool("head", head, most=0),
        groups=tuple(_pool(str(group.get("groupName", "?")), group, group.get("maxReplicas")) for group in workers),
        storage=str(mapping(mapping(raw.get("metadata")).get("annotations")).get(STORAGE) or ""),
        images=tuple(str(box["image"]) for group in (head, *workers) if (box := _container(group)).get("image")),
        ray_version=str(cluster.get("rayVersion") or ""),
    )


def malformed(raw: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about fields that KubeRay would refuse or not understand."""
    kind = str(raw.get("kind"))
    if raw.get("apiVersion") != "ray.io/v1":
        yield f"apiVersion must be ray.io/v1, got {raw.get('apiVersion')}."
    if not mapping(raw.get("metadata")).get("name"):
        yield "metadata.name is missing."
    yield from _fields("spec", mapping(raw.get("spec")), _SPEC[kind])
    cluster = cluster_spec(raw)
    if kind != "RayCluster":
        yield from _fields(f"spec.{_CLUSTER_AT[kind]}", cluster, _SPEC["RayCluster"])
    head, groups = cluster.get("headGroupSpec"), cluster.get("workerGroupSpecs")
    if not isinstance(head, dict):
        yield "headGroupSpec is missing."
    else:
        yield from _group("headGroupSpec", head, _SPEC["head"])
    for index, group in enumerate(listing(groups)):
        where = f"workerGroupSpecs[{index}]"
        yield from _group(where, mapping(group), _SPEC["worker"])
        if not mapping(group).get("groupName"):
            yield f"{where}.groupName is missing."
        least, most = mapping(group).get("minReplicas", 0), mapping(group).get("maxReplicas", 0)
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{where}: minReplicas <= maxReplicas must hold, but got {least} and {most}."
    if kind == "RayJob" and not mapping(raw.get("spec")).get("entrypoint"):
        yield "spec.entrypoint is missing."
    if kind == "RayService" and not mapping(raw.get("spec")).get("serveConfigV2"):
        yield "spec.serveConfigV2 is missing."


def is_reachable_from_outside(raw: Mapping[str, Any]) -> bool:
    """Whether the head's ports, the dashboard's among them, leave the Kubernetes cluster."""
    head = mapping(cluster_spec(raw).get("headGroupSpec"))
    return head.get("serviceType") in ("NodePort", "LoadBalancer") or head.get("enableIngress") is True


def asks_for_token(raw: Mapping[str, Any]) -> bool:
    """Whether the operator makes a token and hands it to every pod."""
    return mapping(cluster_spec(raw).get("authOptions")).get("mode") == "token"


def _group(where: str, group: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> Iterator[str]:
    yield from _fields(where, group, fields)
    for key, value in mapping(group.get("rayStartParams")).items():
        if not isinstance(value, str):
            yield f"{where}.rayStartParams.{key} must be a string in quotes, got {value!r}."
    if not _container(group).get("image"):
        yield f"{where}.template.spec.containers[0].image is missing."


def _fields(where: str, given: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> Iterator[str]:
    for key, value in given.items():
        kinds = fields.get(key)
        if kinds is None:
            yield f"{where}.{key} is no field of KubeRay's; it has {', '.join(sorted(fields))}."
        elif not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            yield f"{where}.{key} is of the wrong type: {value!r}."


def _pool(name: str, group: Mapping[str, Any], most: object) -> dict[str, Any]:
    params = mapping(group.get("rayStartParams"))
    resources = mapping(_container(group).get("resources"))
    wants = mapping(resources.get("requests")) | mapping(resources.get("limits"))
    gpu = next((value for key, value in wants.items() if str(key).endswith("/gpu")), 0)
    selector = mapping(mapping(mapping(group.get("template")).get("spec")).get("nodeSelector"))
    return {
        "name": name,
        "cpus": _cores(params.get("num-cpus", wants.get("cpu"))),
        "gpus": _cores(params.get("num-gpus", gpu)),
        "most": most if isinstance(most, int) else 0,
        "least": group.get("minReplicas") if isinstance(group.get("minReplicas"), int) else 0,
        "is_spot": any(str(selector.get(key)).lower() == value.lower() for key, value in _SPOT.items()),
    }


def _cores(value: object) -> int | None:
    """Whole cores of a Kubernetes quantity, as Ray rounds them up: ``"500m"`` is 1."""
    text = str(value)
    try:
        return -(-int(text[:-1]) // 1000) if text.endswith("m") else -int(-float(text) // 1)
    except ValueError:
        return None


def _container(group: Mapping[str, Any]) -> dict[str, Any]:
    boxes = listing(mapping(mapping(group.get("template")).get("spec")).get("containers"))
    return mapping(boxes[0]) if boxes else {}
