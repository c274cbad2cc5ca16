"""``python -m serve experiment …``: two versions against each other on live traffic, and what was done so far."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from preprocessing.storage import AnyPath
from serve.database import Database
from serve.experiment import MODES, Experiment, Policy
from serve.experiment_policy import decide
from serve.experiment_report import data_of_act, report
from serve.lifecycle import Lifecycle, experiment_named, experiments
from serve.moments import moment_in_words
from serve.release_commands import version_named
from serve.routing import Routing

_Command = Callable[[Database, AnyPath, str, argparse.Namespace], None]


def _start(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    version = version_named(registry, options.challenger)
    pairs = [text.partition("=")[::2] for text in options.policy]
    state = Lifecycle(database, actor).start(
        options.name, version, mode=options.mode, shares=tuple(options.share), policy=Policy.from_words(dict(pairs))
    )
    assert state.experiment is not None
    print(f"{options.name}: {options.mode} of {version} against {state.champion}, share {state.experiment.share:.0%}")


def _status(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    state = Routing(database).current()
    name = options.name or (state.experiment.name if state and state.experiment else None)
    if name is None:
        print(
            f"Champion: {state.champion if state else 'none: no service has run on this ledger'}. No experiment runs."
        )
        for row in experiments(database):
            print(f"  {row['name']:24} {row['outcome']}, ended {moment_in_words(row['ended_s'])}")
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
        print(f"  ended      {row['outcome']}, {moment_in_words(row['ended_s'])}")


def _share(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    Lifecycle(database, actor).set_share(options.name, options.share)


def _ending(act: str) -> _Command:
    def run(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
        from ensemble.registry import CHAMPION, Registry  # torch: for the acts that need it alone

        definition = experiment_named(database, options.name)["definition"]
        data = data_of_act(database, definition)
        state = getattr(Lifecycle(database, actor), act)(options.name, data)
        if why := data.get("no_report"):
            print(f"No report is kept with the act: {why}", file=sys.stderr)
        if act != "stop":
            Registry(registry).set_alias(CHAMPION, state.champion)  # so that a service that starts later agrees
        print(f"The champion is {state.champion}.")

    return run


def _history(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
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
        print(f"{moment_in_words(row['created_s'])}  {row['actor']:16} {row['act']:20} {', '.join(words)}")


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


def add_experiment_commands(areas: Any, command: Callable[..., Any]) -> None:
    """Add the commands to the parser of `serve.admin`."""
    area = areas.add_parser("experiment", help="two versions against each other on live traffic")
    commands = area.add_subparsers(required=True, metavar="COMMAND")
    start = command(commands, "start", _start, "put a challenger beside the champion")
    start.add_argument("name")
    start.add_argument("challenger", help="alias or version")
    start.add_argument(
        "--mode", choices=MODES, default="shadow", help="default shadow: both score, the champion answers"
    )
    start.add_argument("--share", type=float, nargs="+", default=[], help="of the subjects; a canary's steps")
    start.add_argument("--policy", nargs="+", default=[], metavar="NAME=VALUE", help="such as promote=auto alpha=0.01")
    status = command(commands, "status", _status, "the report of the running experiment, or of one by name")
    status.add_argument("name", nargs="?")
    status.add_argument("--json", action="store_true", help="all of it")
    share = command(commands, "share", _share, "give a split another share")
    share.add_argument("name")
    share.add_argument("share", type=float)
    for act, what in (
        ("stop", "end it; the champion stays"),
        ("promote", "end it; the challenger is champion"),
        ("rollback", "take the challenger out, also after its promotion"),
    ):
        command(commands, act, _ending(act), what).add_argument("name")
    history = command(commands, "history", _history, "every act with its data")
    history.add_argument("--json", action="store_true", help="one object a line")
