"""Settings that Ray reads from the environment the moment it is imported; they are made before."""

import os
import secrets

FOR_PROCESSES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.boundary:proxy_middlewares",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""What every process of the service needs, on whatever node."""


def prepare(*, own_ray: bool) -> None:
    """Set up this process before its first ``import ray``.

    Ray's own ports cannot be kept to loopback (it resolves 127.0.0.1 to the machine's address), so a Ray
    that we start is closed with a token of this run instead. In the environment it reaches Ray's children and
    nobody else; a token file in the home directory would switch authentication on for later clusters too.

    Args:
        own_ray: Whether this process starts a Ray; the authentication of a joined one is its owner's choice.
    """
    os.environ.update(FOR_PROCESSES)
    if own_ray:
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
