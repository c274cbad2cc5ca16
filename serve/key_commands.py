"""``python -m serve keys …``: who may call the service."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from preprocessing.storage import AnyPath
from serve.database import Database
from serve.keys import ROLES, Keys
from serve.moments import moment_in_words


def _add_key(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    print(Keys(database, actor).add(options.name, options.role, per_minute=options.per_minute))
    print("This is the only time the key is shown. Callers send it as: Authorization: Bearer KEY", file=sys.stderr)


def _list_keys(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    for row in Keys(database, actor).rows():
        ends = "" if row["ends_s"] is None else f"  ends {moment_in_words(row['ends_s'])}"
        ends += "" if row["per_minute"] is None else f"  {row['per_minute']} images a minute"
        print(f"{row['id']}  {row['roles']:16}  {row['name']:24}  made {moment_in_words(row['created_s'])}{ends}")


def _end_key(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    Keys(database, actor).end(options.id)


def _rotate_key(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    print(Keys(database, actor).rotate(options.id, overlap_s=options.overlap_hours * 3600))
    print(f"The key before opens for {options.overlap_hours:g} hours still.", file=sys.stderr)


def add_key_commands(areas: Any, command: Callable[..., Any]) -> None:
    """Add the commands to the parser of `serve.admin`."""
    keys = areas.add_parser("keys", help="who may call the service").add_subparsers(required=True, metavar="COMMAND")
    add = command(keys, "add", _add_key, "make a key and print it, once")
    add.add_argument("name", help="which system will have it")
    add.add_argument("--role", action="append", choices=ROLES, required=True, help="may be given several times")
    add.add_argument("--per-minute", type=int, help="images that it may send to each gateway (default: any number)")
    command(keys, "list", _list_keys, "every key, without its secret")
    command(keys, "end", _end_key, "let a key open no longer").add_argument("id")
    rotate = command(keys, "rotate", _rotate_key, "make a second key in place of one")
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=float, default=24.0, help="that the first still opens (default 24)")
