"""The traps of cluster files: what the launcher accepts and a night of searching does not survive. No network, no Ray.

Each rule reads one `ClusterFile` and yields what is wrong with it. Faults make ``check-cluster`` fail; notes do not.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema

from search.cluster.file import ClusterFile
from search.cluster.findings import Expected, Finding, Rule
from search.cluster.given import mapping
from search.cluster.kuberay import malformed
from search.cluster.machines import autoscaler, driver, head_trials, scheduling
from search.cluster.security import authentication, dashboard, secrets

NIGHTLY = re.compile(r"\b\d+\.\d+\.\d+\.dev\d*|ray-wheels/(?:latest|master)|\bray[\w-]*:(?:nightly|latest)\b")
_LOCAL_PATHS = ("/tmp", "/root", "/home", "/dev", "/var/tmp", "~", ".")
_EC2_FIELDS = set(
    re.findall(
        r"\w+",
        """
        AdditionalInfo BlockDeviceMappings CapacityReservationSpecification CpuOptions CreditSpecification
        DisableApiStop DisableApiTermination EbsOptimized EnclaveOptions HibernationOptions IamInstanceProfile ImageId
        InstanceInitiatedShutdownBehavior InstanceMarketOptions InstanceType Ipv6AddressCount KeyName LaunchTemplate
        MaintenanceOptions MetadataOptions Monitoring NetworkInterfaces Placement PrivateDnsNameOptions SecurityGroupIds
        SecurityGroups SubnetId SubnetIds TagSpecifications UserData
        """,
    )
)
"""What ``node_config`` may hold on AWS: arguments of RunInstances, and Ray's own SubnetIds."""


def find_traps(file: ClusterFile, expected: Expected) -> list[Finding]:
    """Everything the rules have to say, faults first."""
    findings = [finding for rule in RULES for finding in rule(file, expected)]
    return sorted(findings, key=lambda finding: not finding.is_fault)


def locked_ray_version(lock: Path) -> str:
    """The Ray version that a lock file of ``name==version`` lines pins.

    Raises:
        ValueError: It pins none.
    """
    found = re.search(r"^ray(?:\[[\w,]+\])?==(\S+)$", lock.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{lock} must pin Ray by a line such as ray==2.60.0, and has none.")
    return found.group(1)


def _schema(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    """Ray's own schema of the launcher; our own structure of KubeRay's manifests."""
    if file.provider == "kuberay":
        yield from (Finding(code="schema", sentence=sentence) for sentence in malformed(file.raw))
        return
    spec = importlib.util.find_spec("ray")  # finds the folder, imports nothing
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    schema = json.loads((folder / "autoscaler" / "ray-schema.json").read_text())
    given = dict(file.raw)
    if file.provider == "local":
        given.pop("min_workers", None)  # the launcher takes it away itself before it looks at the schema
    for error in sorted(jsonschema.Draft7Validator(schema).iter_errors(given), key=str):
        where = ".".join(map(str, error.absolute_path)) or "the file"
        yield Finding(code="schema", sentence=f"{where}: {error.message} (Ray's schema of the launcher).")
    if file.provider == "local":
        for key in ("available_node_types", "head_node_type"):
            if key in file.raw:
                yield Finding(code="schema", sentence=f"{key} is not for provider local, which knows one kind of node.")
    elif str(file.raw.get("head_node_type")) not in mapping(file.raw.get("available_node_types")):
        yield Finding(
            code="head-type",
            sentence="head_node_type must name one of available_node_types; without one the launcher takes a head of "
            "its own, which takes trials.",
        )
    if file.provider == "aws":
        for pool in (file.head, *file.pools):
            for key in sorted(set(pool.node_config) - _EC2_FIELDS):
                yield Finding(
                    code="schema",
                    sentence=f"{pool.name}: node_config.{key} is nothing that EC2's RunInstances takes, and Ray "
                    "notices it only when it buys the machine.",
                )


def _provider(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    provider = mapping(file.raw.get("provider"))
    needs = {"aws": ["region"], "gcp": ["region", "project_id"], "local": ["head_ip", "worker_ips"]}
    for key in needs.get(file.provider, []):
        if not provider.get(key):
            yield Finding(code="provider", sentence=f"provider.{key} is missing: {file.provider} cannot do without.")
    if file.provider in ("aws", "gcp"):
        if provider.get("cache_stopped_nodes") is not False:
            yield Finding(
                code="stopped-nodes",
                sentence="Idle machines are stopped and their disks go on costing: by default cache_stopped_nodes is "
                "true. Set provider.cache_stopped_nodes: false.",
            )
        if not file.raw.get("idle_timeout_minutes"):
            yield Finding(
                code="idle",
                sentence="idle_timeout_minutes is not set: after five idle minutes machines go, and come back slowly.",
                is_fault=False,
            )


def _nightly(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if found := NIGHTLY.search(file.text):
        yield Finding(
            code="nightly",
            sentence=f"{found.group()} is another Ray every day. Name the release of requirements.lock, "
            f"{expected.ray_version}.",
        )
    if file.provider in ("aws", "gcp") and not file.images and "setup_commands" not in file.raw:
        yield Finding(
            code="nightly",
            sentence="Without setup_commands the launcher's defaults pip-install a nightly ray-3.0.0.dev0 wheel. "
            "Write setup_commands that install from requirements.lock, or name an image.",
        )


def _version(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    for version in dict.fromkeys(file.ray_versions):
        if version != expected.ray_version and not NIGHTLY.search(f"ray:{version}"):
            yield Finding(
                code="version",
                sentence=f"Ray {version} is named and requirements.lock pins {expected.ray_version}: nodes of "
                "different versions refuse each other.",
            )
    if file.provider == "kuberay":
        if not file.ray_versions:
            yield Finding(code="version", sentence=f"rayVersion is missing; it is {expected.ray_version!r} here.")
        return
    installs = [c for c in file.commands("setup_commands", "worker_setup_commands") if "pip install" in c]
    ours = [c for c in installs if re.search(r"-e\s+\S|\bcarpal\b|--requirement|-r\s", c)]
    if "setup_commands" in file.raw and not any("requirements.lock" in c for c in ours) and not _own_image(file):
        yield Finding(
            code="version",
            sentence="No setup command installs Carpal with the exact versions of the lock file: "
            "pip install -e . -c requirements.lock.",
        )


def _own_image(file: ClusterFile) -> bool:
    return bool(file.images) and not any(re.search(r"(^|/)rayproject/ray", image) for image in file.images)


def _is_shared(storage: str) -> bool:
    if "://" in storage:
        return not storage.startswith(("file://", "local://", "memory://"))
    return storage.startswith("/") and not storage.startswith(_LOCAL_PATHS)


def _storage(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    where = "metadata.annotations: {carpal/storage: ...}" if file.provider == "kuberay" else "metadata: {storage: ...}"
    shared = _is_shared(file.storage)
    if not file.storage:
        yield Finding(
            code="storage",
            sentence="The file does not say where studies lie. Name storage that every node reaches, such as "
            f"s3://BUCKET/carpal or a mounted folder: {where}.",
        )
    elif not shared:
        yield Finding(
            code="storage",
            sentence=f"{file.storage} lies on each node's own disk: a trial that moves finds none of its folds. "
            "Name a bucket, or a folder that is mounted at the same path on every node.",
        )
    spots = [pool.name for pool in file.pools if pool.is_spot]
    if spots and not shared:
        yield Finding(
            code="spot",
            sentence=f"{', '.join(spots)} may vanish at two minutes' notice, and no checkpoint survives it. Keep "
            "studies on shared storage, or take these machines on demand.",
        )


def _placeholders(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    names = dict.fromkeys(re.findall(r"\bYOUR-[A-Z]+(?:-[A-Z]+)*", file.text))
    if names:
        yield Finding(
            code="placeholder",
            sentence=f"Put your own in place of {', '.join(names)} before you use it.",
            is_fault=False,
        )


RULES: tuple[Rule, ...] = (
    _schema,
    _provider,
    _nightly,
    _version,
    head_trials,
    _storage,
    dashboard,
    authentication,
    secrets,
    scheduling,
    driver,
    autoscaler,
    _placeholders,
)
