"""Commands that make an ensemble of trials: build, pareto."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from preprocessing.progress import counting
from preprocessing.storage import as_path, write_atomic

if TYPE_CHECKING:
    from ensemble.candidates import Candidate
    from ensemble.combination import Combination
    from ensemble.costs import Budget
    from search.train import Measurement


def add(commands: Any) -> None:
    """Add them to a parser's commands."""
    build = commands.add_parser("build", help="combine the trials of studies and publish the bundle")
    build.add_argument(
        "studies", nargs="+", metavar="study", help="folder written by python -m search run, local or an fsspec URI"
    )
    build.add_argument("registry", help="folder that bundles are published to, local or an fsspec URI")
    build.add_argument("--max-members", type=int, default=8, help="different trials at most (default 8)")
    build.add_argument(
        "--method",
        choices=["auto", "greedy", "least_squares", "equal", "single"],
        default="auto",
        help="how to weigh them (default auto: whichever has the lowest bias-corrected error)",
    )
    build.add_argument(
        "--rule",
        choices=["mean", "trimmed_mean", "weighted_median"],
        default="trimmed_mean",
        help="how members become one answer where they disagree by more than a year (default trimmed_mean)",
    )
    build.add_argument("--refit", action="store_true", help="serve each member as one model, trained on all folds")
    build.add_argument(
        "--views",
        default="",
        metavar="GROUPS",
        help="test-time views to try, with commas: flip, crops, rotations; kept are those that help",
    )
    build.add_argument("--cohort", help="that the studies used; for --refit and --views")
    _add_budget(build)
    build.add_argument(
        "--alias", default="champion", help="name that will point to it, where that is new (default champion)"
    )
    build.add_argument(
        "--gate",
        metavar="SOURCE",
        default="",
        help="labelled radiographs: put it under stress, compare it with what the alias points to, and move it if "
        "that is passed; of a cohort the locked test",
    )
    build.set_defaults(run=_build)

    pareto = commands.add_parser("pareto", help="show what error each latency allows")
    pareto.add_argument("studies", nargs="+", metavar="study", help="as of build")
    pareto.add_argument("out", help="folder for pareto.csv and pareto.png")
    pareto.add_argument("--device", default="cpu", help="where latency is measured: cpu (default) or a CUDA device")
    pareto.set_defaults(run=_pareto)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-latency-ms", type=float, help="of all members together, for one radiograph")
    parser.add_argument("--max-memory-mb", type=float, help="of all members together, in place of --max-latency-ms")
    parser.add_argument(
        "--device", default="cpu", help="where that is measured, refits train and --gate runs: cpu (default) or CUDA"
    )


def _budget(options: argparse.Namespace) -> "Budget | None":
    from ensemble.costs import BUDGETS, Budget

    given = {name: limit for name in BUDGETS if (limit := getattr(options, f"max_{name}")) is not None}
    if len(given) > 1:
        raise ValueError(f"A budget is one of {' and '.join(BUDGETS.values())}, got both. Name the one that binds.")
    return next((Budget(name=name, limit=limit, device=options.device) for name, limit in given.items()), None)


def _build(options: argparse.Namespace) -> None:
    from ensemble.combine import combine  # late: torch takes seconds that --help does not need
    from ensemble.registry import Registry, check_alias
    from ensemble.stress_commands import settle

    check_alias(options.alias)
    registry = Registry(options.registry)
    combination = combine(
        *options.studies,
        method=options.method,
        max_members=options.max_members,
        rule=options.rule,
        fitted="refit" if options.refit else "folds",
        budget=_budget(options),
        progress=counting("bootstrap rounds"),
    )
    print("\n".join(combination.table()))
    if options.views or options.refit:
        combination = _on_pictures(combination, options)
    published = registry.publish(combination.write)
    if published.is_new:
        print(f"published {published.version} to {registry.path}")
    else:
        print(f"{published.version} is published already, with the same content: nothing to do")
    settle(registry, published.version, options.alias, gate=options.gate, device=options.device)


def _on_pictures(combination: "Combination", options: argparse.Namespace) -> "Combination":
    """What needs the cohort: views that help, and refitted members."""
    from ensemble.view_trial import with_views
    from preprocessing.cohort import Cohort

    if not options.cohort:
        raise ValueError("--refit and --views need the pictures. Name the studies' cohort with --cohort.")
    cohort = Cohort.load(options.cohort)
    if options.views:
        groups = options.views.split(",")
        show = counting("fold models on views")
        combination = with_views(combination, cohort, groups, device=options.device, progress=show)
        for group, found in combination.evidence["views"].items():
            low, high = found["ci95"]
            verdict = "kept" if found["kept"] else "left out"
            if not found["fits_budget"]:
                verdict += ", it does not fit the budget"
            change = f"{found['change_months']:+.3f} months   95 % interval {low:+.3f} to {high:+.3f}"
            print(f"view {group:<10} {change}   {verdict}")

    def say(member: "Candidate", measurement: "Measurement") -> None:
        print(
            f"refit of trial {member.trial.number}: pass {measurement.epoch:.1f}, "
            f"{measurement.mae_months:.2f} months on cases that it learns from",
            file=sys.stderr,
        )

    if options.refit:
        combination.refit(cohort, device=options.device, report=say)
    return combination


def _pareto(options: argparse.Namespace) -> None:
    from ensemble.candidates import gather
    from ensemble.combine import costs_of
    from ensemble.pareto import drawing, front
    from preprocessing.charts import png

    candidates = gather(*options.studies)
    latency_T = costs_of(candidates, "latency_ms", options.device)
    found = front(candidates, latency_T, progress=counting("budgets"))
    out = as_path(options.out)
    write_atomic(out / "pareto.csv", found.table.to_csv(index=False).encode())
    write_atomic(out / "pareto.png", png(drawing(found)))
    print("\n".join(found.lines()))
    print(f"wrote {out / 'pareto.csv'} and {out / 'pareto.png'}")
