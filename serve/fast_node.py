"""The fast way on a node of a cluster: ``eval "$(python -m serve.fast_node)"`` before its ``ray start``.

Prints the environment that makes Serve answer through HAProxy and gRPC on that node, and says on stderr which way the
node goes: without HAProxy nothing is printed, and Serve's own proxy answers. Serve's own HAProxy would listen
with its statistics on every interface; this one listens at one address and nothing else (see `serve.haproxy`).
Gateways then take requests from the HAProxies of all nodes: the service's file needs ``host: 0.0.0.0`` for them, which
the cluster's own network alone may reach.
"""

import argparse
import shlex
import sys
from pathlib import Path

from serve.transport import LOOPBACK, closed_haproxy, find_binary
from serve.versions import ANSWER_TIMEOUT_S


def environment(folder: Path, host: str, port: int) -> dict[str, str]:
    """What every Ray process of the node must have in its environment.

    Args:
        folder: Made if missing, private to its owner.
        host: Address that HAProxy listens at.
        port: Its port: that of the service's file.

    Raises:
        FileNotFoundError: There is no HAProxy.
    """
    if (binary := find_binary()) is None:
        raise FileNotFoundError("There is no HAProxy on this machine. It comes with: pip install 'ray[serve]'")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return closed_haproxy(folder, binary, host, port, ANSWER_TIMEOUT_S)


def main(arguments: list[str] | None = None) -> int:
    """Print lines for a shell."""
    parser = argparse.ArgumentParser(prog="python -m serve.fast_node", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="(default 8000)")
    options = parser.parse_args(arguments)
    try:
        found = environment(Path.home() / ".carpal" / "fast", options.host, options.port)
    except OSError as error:
        print(f"serve.fast_node: plain mode, by Serve's own proxy: {error}", file=sys.stderr)
        return 1
    print("serve.fast_node: fast mode, by HAProxy and gRPC", file=sys.stderr)
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
