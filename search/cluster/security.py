"""Rules about who may talk to a cluster: whoever reaches a port of Ray without a token runs code there."""

import re
from collections.abc import Iterator

from search.cluster.file import ClusterFile, option
from search.cluster.findings import Expected, Finding
from search.cluster.given import listing, mapping
from search.cluster.kuberay import asks_for_token, is_reachable_from_outside

_SECRETS = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|aws_secret_access_key\s*[:=]\s*\S|RAY_AUTH_TOKEN\s*=\s*['\"]?[0-9a-zA-Z]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bhf_[A-Za-z0-9]{20,}",
    re.IGNORECASE,
)


def dashboard(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if file.provider == "kuberay":
        if is_reachable_from_outside(file.raw):
            yield Finding(
                code="dashboard",
                sentence="The head's service leaves the Kubernetes cluster, and whoever reaches the dashboard runs "
                "code. Write serviceType: ClusterIP, enableIngress: false, and use kubectl port-forward.",
            )
        return
    host = option(file.head_start, "dashboard-host")
    by_default = not file.head_start and file.provider in ("aws", "gcp", "azure")
    if by_default or host in ("0.0.0.0", "::", "*"):
        yield Finding(
            code="dashboard",
            sentence="The dashboard listens on every address, and whoever reaches it runs code. Write "
            "--dashboard-host=127.0.0.1 in head_start_ray_commands, and use ray dashboard.",
        )
    security = mapping(mapping(file.raw.get("provider")).get("security_group"))
    for rule in map(mapping, listing(security.get("IpPermissions"))):
        everyone = any(mapping(r).get("CidrIp") == "0.0.0.0/0" for r in listing(rule.get("IpRanges"))) or any(
            mapping(r).get("CidrIpv6") == "::/0" for r in listing(rule.get("Ipv6Ranges"))
        )
        if everyone:
            yield Finding(
                code="ports",
                sentence=f"Ports {rule.get('FromPort')} to {rule.get('ToPort')} are open to the whole internet. "
                "Name your own address in CidrIp.",
            )
    own = security or any(set(pool.node_config) & {"SecurityGroupIds", "NetworkInterfaces"} for pool in file.pools)
    if file.provider == "aws" and not own:
        yield Finding(
            code="ports",
            sentence="Ray's own security group opens SSH to the whole internet. Make a group that admits your "
            "address alone, and name it: provider.security_group: {GroupName: ...}.",
        )


def authentication(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if file.provider == "kuberay":
        if not asks_for_token(file.raw):
            yield Finding(
                code="authentication",
                sentence="Nobody is asked for a token, and every port of Ray runs code. Write "
                "authOptions: {mode: token} (KubeRay 1.5.1 or newer).",
            )
        return
    for who, command in (("head", file.head_start), ("worker", file.worker_start)):
        if "RAY_AUTH_MODE=token" not in command and "RAY_AUTH_MODE=k8s" not in command:
            yield Finding(
                code="authentication",
                sentence=f"Ray on the {who} asks for no token, and every port of it runs code. Write "
                f"RAY_AUTH_MODE=token directly before ray start in {who}_start_ray_commands.",
            )
    mounted = [str(path) for path in mapping(file.raw.get("file_mounts"))]
    if "RAY_AUTH_MODE=token" in file.text and not any("auth_token" in path for path in mounted):
        yield Finding(
            code="authentication",
            sentence="The nodes are asked for a token that nobody brings them. Add it to file_mounts: "
            "~/.ray/auth_token of the user that runs Ray there.",
        )


def secrets(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if _SECRETS.search(file.text):
        yield Finding(
            code="secret",
            sentence="A password, key or token stands in the file, which is copied to every node and kept in "
            "version control. Use a role of the machines, or file_mounts of a file of mode 600.",
        )
