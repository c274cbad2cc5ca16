"""``python -m serve add`` and ``retire``: versions come and go while the service answers.

Both write to the ledger; the service's keeper does what they say, and notes there what became of it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from preprocessing.storage import AnyPath
from serve.database import Database
from serve.releases import ReleaseError, Releases

LOOK_S = 0.5


def add_version(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    """Have a version loaded, and wait until it is ready.

    Raises:
        RegistryError: There is no such version.
        ReleaseError: It cannot be loaded, or was not in time.
    """
    version = version_named(registry, options.version)
    releases = Releases(database, actor)
    releases.add(version)
    print(f"{version} is being loaded beside the others", file=sys.stderr, flush=True)
    end = time.monotonic() + options.wait
    while (row := releases.row(version)) is None or row["status"] not in ("ready", "asleep"):
        if row and row["status"] == "failed":
            raise ReleaseError(f"{version} cannot be served: {row['reason']}")
        if time.monotonic() > end:
            raise ReleaseError(
                f"{version} was not ready after {options.wait:g} s. It goes on loading where a service runs on this "
                "ledger; ask again with the same command, or wait longer with --wait."
            )
        time.sleep(LOOK_S)
    if options.champion:
        before = releases.crown(version).previous
        print(f"The champion is {version}; {before} stays loaded until: serve retire")
    else:
        print(f"{version} is ready")


def retire_version(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    """Have a version taken down.

    Raises:
        ReleaseError: It answers requests, or is not loaded.
    """
    Releases(database, actor).retire(options.version)
    print(f"{options.version} is taken down as soon as its last request is answered.")


def add_release_commands(areas: Any, command: Callable[..., Any]) -> None:
    """Add the commands to the parser of `serve.admin`."""
    add = command(areas, "add", add_version, "load a version beside the others, without downtime, and wait for it")
    add.add_argument("version", help="alias or version")
    add.add_argument("--champion", action="store_true", help="let it answer as soon as it is ready")
    add.add_argument("--wait", type=float, default=600.0, metavar="SECONDS", help="for it to load (default 600)")
    command(areas, "retire", retire_version, "take a version down that answers nobody").add_argument("version")


def version_named(registry: AnyPath, name: str) -> str:
    """The bundle version that an alias or a version means; its files are not read.

    Raises:
        RegistryError: There is no such alias or version.
    """
    from ensemble.registry import Registry  # late: torch takes seconds that --help does not need

    return Registry(registry).version_of(name)
