"""Settings that Ray and others read from the environment the moment they are imported; they are made before."""

import os
import secrets
from collections.abc import Mapping

FOR_PROCESSES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # Trials and replicas share cores: a thread that spins while it waits for another takes the core from a third.
    "OMP_WAIT_POLICY": "PASSIVE",
    # cuBLAS gives the same bits each time with it alone, and asks for it once, at its first use.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Keeps Ray from hiding the GPUs of a driver that asked for none; the coming default.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What every process needs, on whatever node."""


def prepare(settings: Mapping[str, str] = FOR_PROCESSES, *, own_ray: bool) -> None:
    """Set up this process before its first ``import ray``.

    Ray's own ports cannot be kept to loopback (it resolves 127.0.0.1 to the machine's address), so a Ray
    that we start is closed with a token of this run instead. In the environment it reaches Ray's children and
    nobody else; a token file in the home directory would switch authentication on for later clusters too.

    Args:
        settings: What to set; a stage with more to say passes its own.
        own_ray: Whether this process starts a Ray; the authentication of a joined one is its owner's choice.
    """
    os.environ.update(settings)
    if own_ray:
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
