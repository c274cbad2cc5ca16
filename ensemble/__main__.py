"""Command line of the third stage: ``python -m ensemble`` and a command; ``--help`` lists them."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ensemble import explain_commands, registry_commands, site_commands
from preprocessing.progress import Progress
from preprocessing.sources import add_options, options_of
from preprocessing.storage import as_path, write_atomic

if TYPE_CHECKING:
    from ensemble.costs import Budget


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:  # every error of ours is one
        print(f"ensemble: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission: the system's own sentence names the file
        print(f"ensemble: {error}. Mend that, then run it again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ensemble: interrupted; nothing was left half written.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ensemble", description=__doc__)
    commands = parser.add_subparsers(required=True)

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
    _add_budget(build)
    build.add_argument("--alias", default="champion", help="name that will point to it (default champion)")
    build.set_defaults(run=_build)

    pareto = commands.add_parser("pareto", help="show what error each latency allows")
    pareto.add_argument("studies", nargs="+", metavar="study", help="as of build")
    pareto.add_argument("out", help="folder for pareto.csv and pareto.png")
    pareto.add_argument("--device", default="cpu", help="where latency is measured: cpu (default) or a CUDA device")
    pareto.set_defaults(run=_pareto)

    evaluate = commands.add_parser("evaluate", help="measure a bundle on labelled radiographs")
    _add_bundle(evaluate, "bundle_or_registry", "folder of a bundle, or a registry")
    evaluate.add_argument(
        "source", help="labelled pictures: a folder or a table; or a cohort: then its locked test split only"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    evaluate.add_argument("--predictions", metavar="CSV", help="also write one row a case")
    evaluate.add_argument("--device", default="cpu", help="cpu (default) or a CUDA device")
    add_options(evaluate)
    evaluate.set_defaults(run=_evaluate)

    report = commands.add_parser("report", help="write one HTML page about the whole run")
    _add_bundle(report, "registry", "registry that holds the bundle")
    report.add_argument("--study", required=True, help="the study it was built from")
    report.add_argument("--cohort", required=True, help="the cohort that the study used")
    report.add_argument("--answer", help="JSON file written by python -m serve.ask --out")
    report.add_argument("--out", required=True, help="the page to write")
    report.set_defaults(run=_report)

    explain_commands.add(commands)
    site_commands.add(commands)
    registry_commands.add(commands)
    return parser


def _add_bundle(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    parser.add_argument(name, help=f"{text}, local or an fsspec URI")
    parser.add_argument("--version", default="champion", help="version or alias in the registry (default champion)")


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-latency-ms", type=float, help="of all members together, for one radiograph")
    parser.add_argument("--max-memory-mb", type=float, help="of all members together, in place of --max-latency-ms")
    parser.add_argument("--device", default="cpu", help="where that is measured: cpu (default) or a CUDA device")


def _budget(options: argparse.Namespace) -> "Budget | None":
    from ensemble.costs import BUDGETS, Budget

    given = {name: limit for name in BUDGETS if (limit := getattr(options, f"max_{name}")) is not None}
    if len(given) > 1:
        raise ValueError(f"A budget is one of {' and '.join(BUDGETS.values())}, got both. Name the one that binds.")
    return next((Budget(name=name, limit=limit, device=options.device) for name, limit in given.items()), None)


def _build(options: argparse.Namespace) -> None:
    from ensemble.combine import combine  # late: torch takes seconds that --help does not need
    from ensemble.registry import Registry, check_alias

    check_alias(options.alias)
    registry = Registry(options.registry)
    combination = combine(
        *options.studies,
        method=options.method,
        max_members=options.max_members,
        rule=options.rule,
        budget=_budget(options),
        progress=_progress("bootstrap rounds"),
    )
    print("\n".join(combination.table()))
    published = registry.publish(combination.write)
    previous = registry.set_alias(options.alias, published.version)
    if published.is_new:
        print(f"published {published.version} to {registry.path}")
    else:
        print(f"{published.version} is published already, with the same content: nothing to do")
    if previous != published.version:
        print(f"{options.alias} is now {published.version}" + (f", was {previous}" if previous else ""))


def _pareto(options: argparse.Namespace) -> None:
    from ensemble.candidates import gather
    from ensemble.combine import costs_of
    from ensemble.pareto import drawing, front
    from preprocessing.charts import png

    candidates = gather(*options.studies)
    latency_T = costs_of(candidates, "latency_ms", options.device)
    found = front(candidates, latency_T, progress=_progress("budgets"))
    out = as_path(options.out)
    write_atomic(out / "pareto.csv", found.table.to_csv(index=False).encode())
    write_atomic(out / "pareto.png", png(drawing(found)))
    print("\n".join(found.lines()))
    print(f"wrote {out / 'pareto.csv'} and {out / 'pareto.png'}")


def _evaluate(options: argparse.Namespace) -> None:
    from ensemble.evaluate import evaluate
    from ensemble.predictor import Predictor
    from ensemble.registry import registry_or_bundle

    bundle = registry_or_bundle(options.bundle_or_registry, options.version)
    predictor = Predictor(bundle, options.device)
    evaluation = evaluate(predictor, options.source, options_of(options), progress=_progress())
    if options.predictions:
        write_atomic(as_path(options.predictions), evaluation.cases.to_csv(index=False).encode())
    if evaluation.report.get("cohort_of_bundle") is False:
        print(
            "ensemble: this is not the cohort that the bundle was trained on; "
            "its test split may hold training cases, which make the figures too good.",
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps(evaluation.report, indent=1, allow_nan=False))
    else:
        print("\n".join(_lines(evaluation.report)))


def _report(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry
    from ensemble.report import render

    page = render(
        Registry(options.registry).resolve(options.version),
        study=options.study,
        cohort=options.cohort,
        answer=options.answer,
        progress=_progress(),
    )
    out = as_path(options.out)
    write_atomic(out, page.encode())
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB)")


def _progress(what: str = "radiographs predicted") -> Callable[[int, int], None]:
    """A progress line that learns the total with the first step."""
    bars: list[Progress] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(Progress(what, total))
        bars[0](done)

    return show


def _lines(report: dict[str, Any]) -> list[str]:
    low, high = report["mae_ci95"]
    median_low, median_high = report["median_predictor_ci95"]
    lines = [
        f"{report['bundle']} on {report['n']} cases ({report['source']}), {report['rejected']} rejected",
        "",
        f"  mean absolute error   {report['mae_months']:6.2f} months   95 % interval {low:.2f} to {high:.2f}",
        f"  median predictor      {report['median_predictor_mae_months']:6.2f} months   "
        f"95 % interval {median_low:.2f} to {median_high:.2f}",
        f"  root mean square      {report['rmse_months']:6.2f} months",
        f"  bias                  {report['bias_months']:+6.2f} months",
        f"  within 12 months      {100 * report['within_12_months']:6.1f} %",
        f"  right year            {100 * report['top1_year']:6.1f} %   among the two likeliest "
        f"{100 * report['top2_year']:.1f} %",
        "",
        "  sex     bone age          n     MAE    bias",
    ]
    for group in report["groups"]:
        low, high = group["bone_age_years"]
        lines.append(
            f"  {group['sex']:<7} {low:>2} to {high:>2} years {group['n']:>4}  {group['mae_months']:6.2f}  "
            f"{group['bias_months']:+6.2f}"
        )
    if "cohort_of_bundle" not in report:
        lines += ["", "  Cases that the bundle was trained on, should any be here, make these figures too good."]
    if report["rejected"]:
        lines += ["", "  rejected: " + ", ".join(f"{n} x {why}" for why, n in report["rejected_reasons"].items())]
        for row in report["rejected_files"][:20]:
            lines.append(f"    {row['file'] or row['case_id']}: {row['detail']}")
        if report["rejected"] > 20:
            lines.append(f"    and {report['rejected'] - 20} more; --json lists all")
    return lines


if __name__ == "__main__":
    sys.exit(main())
