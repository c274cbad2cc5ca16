"""Commands that make an ensemble of trials: build, pareto."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from preprocessing.progress import counting
from preprocessing.storage import as_path, write_atomic

if TYPE_CHECKING:
    from ensemble.candidates import Candidate
    from ensemble.combination import Combination
    from ensemble.costs import Budget
    from preprocessing.cohort import Cohort
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
        help="how to weigh them (default auto: whichever has the lowest error by BBC-CV)",
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
    build.add_argument(
        "--distill", action="store_true", help="teach one small network for the fast profile; kept where it errs less"
    )
    build.add_argument(
        "--cohort", help="that the studies used, where it is not at its place; named for --refit, --views and --distill"
    )
    build.add_argument(
        "--norms",
        metavar="CSV",
        default="",
        help="bone age of healthy children, by which answers are judged: sex, age_months, sd_months, source "
        "[mean_months] (default: the published table)",
    )
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
    from ensemble.chronology import read_norms
    from ensemble.combine import combine  # late: torch takes seconds that --help does not need
    from ensemble.members import check_device
    from ensemble.registry import Registry, check_alias
    from ensemble.stress_commands import settle

    check_alias(options.alias)
    check_device(options.device)  # or it would show after the bundle is published and a reading of a locked test noted
    norms = as_path(options.norms).read_bytes() if options.norms else b""
    if norms:
        read_norms(norms)  # refused before anything is chosen
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
    combination = replace(combination, norms=norms, cohort=_named_cohort(combination, options.cohort))
    if options.views or options.refit or options.distill:
        combination = _on_pictures(combination, options)
    if not options.refit:
        combination = _with_fold_answers(combination, options)
    published = registry.publish(combination.write)
    if published.is_new:
        print(f"published {published.version} to {registry.path}")
    else:
        print(f"{published.version} is published already, with the same content: nothing to do")
    settle(registry, published.version, options.alias, gate=options.gate, device=options.device)


def _named_cohort(combination: "Combination", path: str | None) -> "Cohort | None":
    from preprocessing.cohort import Cohort

    if not path:
        return None
    cohort = Cohort.load(path)
    combination.check_cohort(cohort)
    return cohort


def _on_pictures(combination: "Combination", options: argparse.Namespace) -> "Combination":
    """What needs the cohort: views that help, and refitted members."""
    from ensemble.view_trial import with_views

    cohort = combination.cohort
    if cohort is None:
        raise ValueError("--refit, --views and --distill need the pictures. Name the studies' cohort with --cohort.")
    if options.refit and options.distill:
        raise ValueError("--distill teaches fold models, which --refit does not serve. Leave one of the two out.")
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
    if options.distill:
        combination = _distilled(combination, cohort, options.device)
    return combination


def _with_fold_answers(combination: "Combination", options: argparse.Namespace) -> "Combination":
    """What the intervals are narrowed by, where the cohort is at hand."""
    from ensemble.fold_models import MIN_PICTURES, with_fold_answers
    from ensemble.scores import served_line

    cohort = combination.cohort_at_hand
    if cohort:
        show = counting("fold models on unseen pictures")
        combination = with_fold_answers(combination, cohort, device=options.device, progress=show)
    if "as_served_mae_months" in combination.evidence and "as_served" not in combination.evidence:
        print(served_line(combination.evidence))  # else a second partition told it
    if found := combination.fold_answers.get("full"):
        print(
            "intervals are fitted for the mean of fold models, by what these say of "
            f"{len(found.is_male_N)} pictures of the locked test (no reference was read)"
        )
    else:
        why = f"locks fewer than {MIN_PICTURES} cases" if cohort else "is not at its place; name it with --cohort"
        print(f"intervals are those of single fold models, and hold their mean a little too often: the cohort {why}")
    return combination


def _distilled(combination: "Combination", cohort: "Cohort", device: str) -> "Combination":
    from ensemble.student import distilled

    def say(fold: int, now: "Measurement") -> None:
        print(f"distilling fold {fold}: pass {now.epoch:.1f}, {now.mae_months:.2f} months", file=sys.stderr)

    combination = distilled(combination, cohort, device=device, report=say)
    found = combination.profiles()["fast"]["evidence"]["distilled"]
    low, high = found["distilled_less_member_ci95"]
    print(
        f"distilled for the fast profile: {found['distilled_oof_mae_months']:.2f} months, the member of its "
        f"size {found['member_oof_mae_months']:.2f}; {found['distilled_less_member_months']:+.2f}   "
        f"95 % interval {low:+.2f} to {high:+.2f}   {'kept' if found['kept'] else 'left out'}"
    )
    return combination


def _pareto(options: argparse.Namespace) -> None:
    from ensemble.candidates import gather
    from ensemble.combine import costs_of
    from ensemble.members import check_device
    from ensemble.pareto import drawing, front
    from preprocessing.charts import png

    check_device(options.device)
    candidates = gather(*options.studies)
    latency_T = costs_of(candidates, "latency_ms", options.device)
    found = front(candidates, latency_T, progress=counting("budgets"))
    out = as_path(options.out)
    write_atomic(out / "pareto.csv", found.csv())
    write_atomic(out / "pareto.png", png(drawing(found)))
    print("\n".join(found.lines()))
    print(f"wrote {out / 'pareto.csv'} and {out / 'pareto.png'}")
