"""Commands on the ledger of a running service: ``python -m serve keys|experiment|add|retire|images …``.

They write to the ledger, and every gateway follows within two seconds. None loads Ray.
"""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from preprocessing.storage import AnyPath, as_path, is_local
from serve.database import Database, LedgerDownError, LedgerError
from serve.experiment import MODES, Experiment, Policy
from serve.experiment_policy import decide
from serve.experiment_report import report
from serve.image_commands import add_image_commands
from serve.keys import ROLES, Keys
from serve.lifecycle import Lifecycle, experiment_named, experiments
from serve.release_commands import add_release_commands, version_named
from serve.routing import Routing, RoutingConflictError

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
        options.run(options, database, registry)
    except (ValueError, OSError, LedgerDownError, RoutingConflictError) as error:  # all of ours are ValueErrors
        print(f"serve: {error}", file=sys.stderr)
        return 2
    return 0


def _actor() -> str:
    return f"local:{getpass.getuser()}"[:64]


def _add_key(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    print(Keys(database, _actor()).add(options.name, options.role, per_minute=options.per_minute))
    print("This is the only time the key is shown. Callers send it as: Authorization: Bearer KEY", file=sys.stderr)


def _list_keys(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    for row in Keys(database, _actor()).rows():
        ends = "" if row["ends_s"] is None else f"  ends {_moment(row['ends_s'])}"
        ends += "" if row["per_minute"] is None else f"  {row['per_minute']} images a minute"
        print(f"{row['id']}  {row['roles']:16}  {row['name']:24}  made {_moment(row['created_s'])}{ends}")


def _end_key(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    Keys(database, _actor()).end(options.id)


def _rotate_key(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    print(Keys(database, _actor()).rotate(options.id, overlap_s=options.overlap_hours * 3600))
    print(f"The key before opens for {options.overlap_hours:g} hours still.", file=sys.stderr)


def _start(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    version = version_named(registry, options.challenger)
    pairs = [text.partition("=")[::2] for text in options.policy]
    state = Lifecycle(database, _actor()).start(
        options.name, version, mode=options.mode, shares=tuple(options.share), policy=Policy.from_dict(dict(pairs))
    )
    assert state.experiment is not None
    print(f"{options.name}: {options.mode} of {version} against {state.champion}, share {state.experiment.share:.0%}")


def _status(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    state = Routing(database).current()
    name = options.name or (state.experiment.name if state and state.experiment else None)
    if name is None:
        print(
            f"Champion: {state.champion if state else 'none: no service has run on this ledger'}. No experiment runs."
        )
        for row in experiments(database):
            print(f"  {row['name']:24} {row['outcome']}, ended {_moment(row['ended_s'])}")
        return
    row = experiment_named(database, name)
    running = state.experiment if state and state.experiment and state.experiment.name == name else None
    experiment = running or Experiment.from_dict(row["definition"])
    found = report(database, experiment)
    if options.json:
        print(json.dumps(found))
        return
    print("\n".join(summary(found)))
    if running:
        decision = decide(experiment, found)
        waits = "" if decision.is_due else " (waits for: python -m serve experiment promote)"
        print(f"  policy     {decision.act}{waits}: {decision.why}")
    else:
        print(f"  ended      {row['outcome']}, {_moment(row['ended_s'])}")


def _share(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    Lifecycle(database, _actor()).set_share(options.name, options.share)


def _ending(act: str) -> Callable[[argparse.Namespace, Database, AnyPath], None]:
    def run(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
        from ensemble.registry import CHAMPION, Registry  # torch: for the acts that need it alone

        definition = experiment_named(database, options.name)["definition"]
        data = {"why": "by hand", "report": report(database, Experiment.from_dict(definition))}
        state = getattr(Lifecycle(database, _actor()), act)(options.name, data)
        if act != "stop":
            Registry(registry).set_alias(CHAMPION, state.champion)  # so that a service that starts later agrees
        print(f"The champion is {state.champion}.")

    return run


def _history(options: argparse.Namespace, database: Database, registry: AnyPath) -> None:
    for row in Routing(database).history():
        if options.json:
            print(json.dumps(row))
            continue
        detail = row["detail"]
        release = detail.get("release", "")
        state = detail.get("state") or {}
        running = (state.get("experiment") or {}).get("name", "")
        why = (detail.get("data") or {}).get("why", "")
        words = [f"champion {state['champion']}"] if state else [str(detail.get("name", detail.get("key", "")))]
        words += [release] * bool(release)
        words += [f"experiment {running}"] * bool(running) + [why] * bool(why)
        print(f"{_moment(row['created_s'])}  {row['actor']:16} {row['act']:20} {', '.join(words)}")


def summary(found: dict[str, Any]) -> list[str]:
    """A report as lines for a terminal."""
    experiment, arms = found["experiment"], found["arms"]
    share = experiment["shares"][experiment["step"]]
    lines = [f"{experiment['name']}: {experiment['mode']}, share {share:.0%}, {found['predictions']:,} predictions"]
    for arm in ("champion", "challenger"):
        row = arms[arm]
        error = "no reading yet" if row["mae_months"] is None else f"error {row['mae_months']:.2f} months"
        latency = f", p95 {row['latency_ms']['p95']:.0f} ms" if row["latency_ms"] else ""
        lines.append(
            f"  {arm:10} {row['version']}: {error} (n = {row['with_reading']:,}), "
            f"{row['answered']:,} answered, {row['failed']:,} failed{latency}"
        )
    if gain := found["difference"]:
        lines.append(
            f"  gain       {gain['mean_months']:+.2f} months, {1 - gain['alpha']:.0%} at all times "
            f"{gain['lower_months']:+.2f} to {gain['upper_months']:+.2f} (n = {gain['n']:,}, {gain['method']})"
        )
    if pair := found["agreement"]["challenger_champion"]:
        lines.append(
            f"  agreement  challenger less champion {pair['mean_months']:+.2f} months, 95 % within "
            f"{pair['lower_limit_months']:+.1f} to {pair['upper_limit_months']:+.1f} (n = {pair['n']:,})"
        )
    for row in found["subgroups"]:
        if gain := row["difference"]:
            years = f"{row['from_months'] // 12} to {row['below_months'] // 12} years"
            lines.append(
                f"    {row['sex']:8} {years:15} {gain['mean_months']:+.2f} "
                f"({gain['lower_months']:+.2f} to {gain['upper_months']:+.2f}, n = {gain['n']:,})"
            )
    if ratio := found["ratio"]:
        verdict = "as drawn" if ratio["is_as_drawn"] else "NOT as drawn: nothing is decided"
        lines.append(
            f"  split      {ratio['challenger']:,} of {ratio['subjects']:,} subjects met the challenger, "
            f"{ratio['expected']:,.0f} expected: {verdict} (p = {ratio['p']:.2g})"
        )
    return lines


def _as_actor(run: Callable[..., None]) -> Callable[[argparse.Namespace, Database, AnyPath], None]:
    """A command of another module, which is told who acts."""
    return lambda options, database, registry: run(database, registry, _actor(), options)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    areas = parser.add_subparsers(required=True, metavar="|".join(COMMANDS))
    keys = areas.add_parser("keys", help="who may call the service").add_subparsers(required=True, metavar="COMMAND")
    add = _command(keys, "add", _add_key, "make a key and print it, once")
    add.add_argument("name", help="which system will have it")
    add.add_argument("--role", action="append", choices=ROLES, required=True, help="may be given several times")
    add.add_argument("--per-minute", type=int, help="images that it may send to each gateway (default: any number)")
    _command(keys, "list", _list_keys, "every key, without its secret")
    _command(keys, "end", _end_key, "let a key open no longer").add_argument("id")
    rotate = _command(keys, "rotate", _rotate_key, "make a second key in place of one")
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=float, default=24.0, help="that the first still opens (default 24)")
    area = areas.add_parser("experiment", help="two versions against each other on live traffic")
    commands = area.add_subparsers(required=True, metavar="COMMAND")
    start = _command(commands, "start", _start, "put a challenger beside the champion")
    start.add_argument("name")
    start.add_argument("challenger", help="alias or version")
    start.add_argument(
        "--mode", choices=MODES, default="shadow", help="default shadow: both score, the champion answers"
    )
    start.add_argument("--share", type=float, nargs="+", default=[], help="of the subjects; a canary's steps")
    start.add_argument("--policy", nargs="+", default=[], metavar="NAME=VALUE", help="such as promote=auto alpha=0.01")
    status = _command(commands, "status", _status, "the report of the running experiment, or of one by name")
    status.add_argument("name", nargs="?")
    status.add_argument("--json", action="store_true", help="all of it")
    share = _command(commands, "share", _share, "give a split another share")
    share.add_argument("name")
    share.add_argument("share", type=float)
    for act, what in (
        ("stop", "end it; the champion stays"),
        ("promote", "end it; the challenger is champion"),
        ("rollback", "take the challenger out, also after its promotion"),
    ):
        _command(commands, act, _ending(act), what).add_argument("name")
    add_release_commands(areas, _command, _as_actor)
    add_image_commands(areas, _command, _as_actor)
    history = _command(commands, "history", _history, "every act with its data")
    history.add_argument("--json", action="store_true", help="one object a line")
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
