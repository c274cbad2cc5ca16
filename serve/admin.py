"""Commands on the ledger of a running service: ``python -m serve keys|experiment|add|retire|images …``.

They write to the ledger, and every gateway follows within two seconds. None loads Ray.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from preprocessing.storage import AnyPath, as_path, is_local
from serve.database import Database, LedgerDownError, LedgerError
from serve.experiment_commands import add_experiment_commands
from serve.image_commands import add_image_commands
from serve.key_commands import add_key_commands
from serve.release_commands import add_release_commands
from serve.routing import RoutingConflictError

COMMANDS = ("keys", "experiment", "add", "retire", "images")


def ledger_url(registry: AnyPath, given: str | None) -> str:
    """Where the ledger of a service on this registry lies.

    Raises:
        LedgerError: The registry is in an object store, and nothing else was named.
    """
    if url := given or os.environ.get("CARPAL_LEDGER"):
        return url
    if not is_local(registry):
        raise LedgerError(
            f"{registry} is no place for a ledger. Name a database: --ledger postgresql+psycopg://user@host/name"
        )
    return f"sqlite:///{registry}/ledger/ledger.db"


def spool_folder(registry: AnyPath) -> Path:
    """Where predictions wait while the database is away: on this machine's own disk."""
    return Path(registry) / "ledger" / "spool" if is_local(registry) else Path.home() / ".carpal" / "spool"


def main(arguments: list[str]) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2."""
    options = _parser().parse_args(arguments)
    registry = as_path(options.registry)
    try:
        if is_local(registry) and not registry.is_dir():
            raise LedgerError(f"{registry} does not exist. Name a registry that python -m ensemble build published to.")
        database = Database(ledger_url(registry, options.ledger))
        options.run(database, registry, _actor(), options)
    except (ValueError, OSError, LedgerDownError, RoutingConflictError) as error:  # all of ours are ValueErrors
        print(f"serve: {error}", file=sys.stderr)
        return 2
    return 0


def _actor() -> str:
    return f"local:{getpass.getuser()}"[:64]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    areas = parser.add_subparsers(required=True, metavar="|".join(COMMANDS))
    add_key_commands(areas, _command)
    add_experiment_commands(areas, _command)
    add_release_commands(areas, _command)
    add_image_commands(areas, _command)
    return parser


def _command(commands: Any, name: str, run: Callable[..., None], what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.add_argument("registry", help="that the service serves from")
    parser.add_argument("--ledger", help="URL of its ledger (default: $CARPAL_LEDGER, else SQLite in the registry)")
    parser.set_defaults(run=run)
    return parser


def is_command(arguments: Sequence[str]) -> bool:
    """Whether the words are for this module and not for the service."""
    return bool(arguments) and arguments[0] in COMMANDS
