"""Command line of the third stage: ``python -m ensemble`` and a command; ``--help`` lists them."""

import argparse
import json
import sys
from typing import Any

from ensemble import build_commands, explain_commands, registry_commands, site_commands
from preprocessing.progress import counting
from preprocessing.sources import add_options, options_of
from preprocessing.storage import as_path, write_atomic


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
    build_commands.add(commands)

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


def _evaluate(options: argparse.Namespace) -> None:
    from ensemble.bundle import MARKER
    from ensemble.evaluate import evaluate
    from ensemble.locked import note_reading
    from ensemble.predictor import Predictor
    from ensemble.registry import Registry, registry_or_bundle

    bundle = registry_or_bundle(options.bundle_or_registry, options.version)
    predictor = Predictor(bundle, options.device)
    evaluation = evaluate(predictor, options.source, options_of(options), progress=counting("radiographs predicted"))
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
    is_registry = not (as_path(options.bundle_or_registry) / MARKER).exists()
    if is_registry and evaluation.report.get("cohort_of_bundle"):
        print(f"ensemble: {note_reading(Registry(options.bundle_or_registry), evaluation.report)}", file=sys.stderr)


def _report(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry
    from ensemble.report import render

    page = render(
        Registry(options.registry).resolve(options.version),
        study=options.study,
        cohort=options.cohort,
        answer=options.answer,
        progress=counting("radiographs predicted"),
    )
    out = as_path(options.out)
    write_atomic(out, page.encode())
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB)")


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
