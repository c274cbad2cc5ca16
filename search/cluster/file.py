"""What a cluster file promises, in one shape for Ray's launcher (``ray up``) and for KubeRay. Plain data, no Ray."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search.cluster.given import listing, mapping
from search.cluster.kuberay import KINDS, read_kuberay

_MISSING_DEFAULTS = {"aws": ("ray.head.default", "ray.worker.default"), "gcp": ("ray_head_default", "ray_worker_small")}


class ClusterFileError(ValueError):
    """The file cannot be read as a cluster file at all."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Machines of one kind."""

    name: str
    cpus: int | None
    """Cores that Ray may give away on each; None: whatever the machine has."""
    gpus: int | None
    """GPUs of each; None: whatever the machine has."""
    most: int
    """Machines at most."""
    least: int = 0
    """Machines that are always there."""
    instance: str = ""
    """The provider's name of the machine; empty where the file does not say."""
    is_spot: bool = False
    node_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """A cluster file, read."""

    path: str
    provider: str
    """``aws``, ``gcp``, ``local``, ``kuberay`` or another name that Ray knows."""
    raw: Mapping[str, Any]
    text: str
    """The file without its comments."""
    head: Pool
    pools: tuple[Pool, ...]
    storage: str
    """Where cohorts, studies and registries lie; empty where the file does not say."""
    images: tuple[str, ...] = ()
    """Container images with their tags."""
    ray_versions: tuple[str, ...] = ()
    """Every Ray version that the file names."""

    def commands(self, *keys: str) -> list[str]:
        """Commands of a launcher's file under these keys."""
        return [str(command) for key in keys for command in listing(self.raw.get(key))]

    @property
    def head_start(self) -> str:
        """The command that starts Ray on the head, empty where the launcher's default does."""
        return " ".join(c for c in self.commands("head_start_ray_commands") if "ray start" in c)

    @property
    def worker_start(self) -> str:
        """The command that starts Ray on workers, empty where the launcher's default does."""
        return " ".join(c for c in self.commands("worker_start_ray_commands") if "ray start" in c)


def read_cluster_file(path: Path) -> ClusterFile:
    """Read a file of `ray up`, or a RayJob, RayService or RayCluster of KubeRay.

    Raises:
        ClusterFileError: It is no such file.
    """
    try:
        text = path.read_text()
        raw = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterFileError(f"{path} cannot be read as one YAML document: {error}.") from None
    if not isinstance(raw, dict) or not ({"provider", "cluster_name"} & set(raw) or raw.get("kind") in KINDS):
        raise ClusterFileError(f"{path} is no cluster file: it names neither a provider nor one of {', '.join(KINDS)}.")
    bare = "\n".join(re.sub(r"(^|\s)#.*$", "", line) for line in text.splitlines())
    if raw.get("kind") in KINDS:
        found = read_kuberay(raw)
        return ClusterFile(
            path=str(path),
            provider="kuberay",
            raw=raw,
            text=bare,
            head=_kuberay_pool(found.head),
            pools=tuple(_kuberay_pool(group) for group in found.groups),
            storage=found.storage,
            images=found.images,
            ray_versions=(found.ray_version,) if found.ray_version else (),
        )
    provider = mapping(raw.get("provider"))
    kind = str(provider.get("type", ""))
    head, pools = _local_pools(raw, provider) if kind == "local" else _launcher_pools(raw, kind)
    images = tuple(_images(raw))
    return ClusterFile(
        path=str(path),
        provider=kind,
        raw=raw,
        text=bare,
        head=head,
        pools=pools,
        storage=str(mapping(raw.get("metadata")).get("storage") or ""),
        images=images,
        ray_versions=tuple(_ray_versions(images, bare)),
    )


def option(command: str, name: str) -> str | None:
    """The value of ``--name=value`` or ``--name value`` in a shell command; None where it is not given."""
    try:
        words = shlex.split(command)
    except ValueError:  # an odd number of quotes is the shell's to complain about
        words = command.split()
    for word, following in itertools.pairwise([*words, ""]):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def _launcher_pools(raw: Mapping[str, Any], provider: str) -> tuple[Pool, tuple[Pool, ...]]:
    kinds = mapping(raw.get("available_node_types"))
    default_head, _ = _MISSING_DEFAULTS.get(provider, ("", ""))
    name = str(raw.get("head_node_type") or default_head)
    total = raw.get("max_workers")
    pools = [_launcher_pool(key, mapping(value), total) for key, value in kinds.items() if key != name]
    head = _launcher_pool(name, mapping(kinds.get(name)), total)
    return head, tuple(pools)


def _launcher_pool(name: str, kind: Mapping[str, Any], total: object) -> Pool:
    node, resources = mapping(kind.get("node_config")), mapping(kind.get("resources"))
    most = kind.get("max_workers", total)
    scheduling = node.get("scheduling")
    terms = scheduling if isinstance(scheduling, list) else [scheduling]
    spot = mapping(node.get("InstanceMarketOptions")).get("MarketType") == "spot" or any(
        mapping(term).get("preemptible") is True or mapping(term).get("provisioningModel") == "SPOT" for term in terms
    )
    return Pool(
        name=name,
        cpus=_whole(resources.get("CPU")),
        gpus=_whole(resources.get("GPU", 0 if "CPU" in resources else None)),
        most=_whole(most) or 0,
        least=_whole(kind.get("min_workers")) or 0,
        instance=str(node.get("InstanceType") or node.get("machineType") or "").rsplit("/", 1)[-1],
        is_spot=spot,
        node_config=node,
    )


def _local_pools(raw: Mapping[str, Any], provider: Mapping[str, Any]) -> tuple[Pool, tuple[Pool, ...]]:
    """The launcher knows nothing of machines that it does not buy, except what `ray start` is told."""

    def told(key: str, name: str) -> int | None:
        words = " ".join(str(command) for command in listing(raw.get(key)))
        return _whole(option(words, name))

    count = len(listing(provider.get("worker_ips")))
    head = Pool(
        name="head",
        cpus=told("head_start_ray_commands", "num-cpus"),
        gpus=told("head_start_ray_commands", "num-gpus"),
        most=0,
    )
    workers = Pool(
        name="workers",
        cpus=told("worker_start_ray_commands", "num-cpus"),
        gpus=told("worker_start_ray_commands", "num-gpus"),
        most=min(count, _whole(raw.get("max_workers", count)) or 0),
        least=min(count, _whole(raw.get("min_workers", count)) or 0),
    )
    return head, (workers,)


def _kuberay_pool(group: Mapping[str, Any]) -> Pool:
    return Pool(**group)


def _whole(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _images(raw: Mapping[str, Any]) -> Iterator[str]:
    sections = [mapping(raw.get("docker"))]
    sections += [mapping(mapping(kind).get("docker")) for kind in mapping(raw.get("available_node_types")).values()]
    for section in sections:
        yield from (str(section[key]) for key in ("image", "head_image", "worker_image") if section.get(key))


def _ray_versions(images: tuple[str, ...], text: str) -> Iterator[str]:
    for image in images:
        if found := re.search(r"(?:^|/)ray(?:-ml|-llm)?:([^-\s]+)", image):
            yield found.group(1)
    yield from re.findall(r"\bray(?:\[[\w,]+\])?\s*==\s*([\w.]+)", text)
