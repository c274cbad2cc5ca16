"""Commands that measure: evaluate and compare, each on bundles or on the predictions of any other system."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ensemble.arguments import BUNDLE, add_bundle
from preprocessing.progress import counting
from preprocessing.sources import add_options, options_of
from preprocessing.storage import as_path, write_atomic, write_json

WHAT = f"{BUNDLE}; or a CSV of predictions (id, predicted_months)"


def add(commands: Any) -> None:
    """Add them to a parser's commands."""
    evaluate = commands.add_parser("evaluate", help="measure a bundle, or any system's predictions, on labelled cases")
    add_bundle(evaluate, text=WHAT)
    evaluate.add_argument(
        "source",
        nargs="?",
        help="labelled pictures: a folder or a table; or a cohort: then its locked test split only. "
        "Left out, a CSV of predictions must hold the references too",
    )
    evaluate.add_argument("--profile", default="full", help="which members answer: full (default) or fast")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    evaluate.add_argument("--predictions", metavar="CSV", help="also write one row a case")
    evaluate.add_argument("--out", metavar="FOLDER", help="also write the report, its tables and its drawings")
    _add_common(evaluate)
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="two bundles, or systems, on the same labelled cases")
    compare.add_argument("a", help=f"the one that stands: {WHAT}")
    compare.add_argument("b", help="the one that may take its place")
    compare.add_argument("source", help="labelled pictures, a cohort (its locked test), or a table of references")
    compare.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    _add_common(compare)
    compare.set_defaults(run=_compare, version="champion", profile="full")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predicted", metavar="NAME", default="", help="column of a CSV of predictions")
    parser.add_argument(
        "--predicted-unit", choices=("months", "years"), default="", help="of that column (default: by its name)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or a CUDA device")
    add_options(parser)


def evaluation_of(what: str, source: str | None, options: argparse.Namespace) -> Callable[..., Any]:
    """Load what the command line names, a bundle or a table of predictions, so that it can be evaluated.

    Args:
        what: The word for it.
        source: The word for the labelled cases, or None.
        options: The others.

    Returns:
        A function that evaluates it. It takes ``command`` and ``purpose``, as `ensemble.locked.open_test` has them; of
        an evaluation none.
    """
    from ensemble.answers import EvaluationError
    from ensemble.evaluate import check, evaluate, evaluate_table
    from ensemble.predictions import is_table
    from ensemble.predictor import Predictor
    from ensemble.registry import named_bundle

    if is_table(what):
        of_table = {"column": options.predicted, "unit": options.predicted_unit}
        return partial(evaluate_table, what, source, options_of(options), **of_table)
    if source is None:
        raise EvaluationError(f"{what} is no table of predictions, so it needs a SOURCE of labelled pictures.")
    bundle = named_bundle(what, options.version)
    check(bundle, source, profile=options.profile)
    predictor = Predictor(bundle, options.device)
    show = counting("radiographs predicted")
    return partial(evaluate, predictor, source, options_of(options), profile=options.profile, progress=show)


def _evaluate(options: argparse.Namespace) -> None:
    from ensemble.printed import evaluation_text

    evaluation = evaluation_of(options.bundle, options.source, options)()
    if options.predictions:
        write_atomic(as_path(options.predictions), _csv(evaluation.cases))
    if options.out:
        _write(evaluation, options.out)
    if evaluation.report.get("cohort_of_bundle") is False:
        print(
            "ensemble: this is not the cohort that the bundle was trained on; "
            "its test split may hold training cases under other names, which make the figures too good.",
            file=sys.stderr,
        )
    print(
        json.dumps(evaluation.report, indent=1, allow_nan=False) if options.json else evaluation_text(evaluation.report)
    )
    _warn(evaluation.report, options.json)


def _warn(report: dict[str, Any], is_json: bool) -> None:
    """Say on the error stream what a person must know beside JSON, and what must not be overlooked beside a text."""
    from ensemble.printed import ASIDES

    for aside in (report[name] for name in ASIDES if name in report):
        if is_json or aside.get("left_out") or aside.get("recorded") is False or aside.get("doubtful"):
            print(f"ensemble: {aside['says']}", file=sys.stderr)


def _write(evaluation: Any, out: str) -> None:
    from preprocessing.charts import png
    from search.figures import agreement, bland_altman, confusion, errors_by_group

    folder = as_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    matrix = _matrix(evaluation.cases)
    for name, figure in (
        ("agreement", agreement(evaluation.cases)),
        ("bland_altman", bland_altman(evaluation.cases)),
        ("confusion", confusion(matrix)),
        ("errors_by_group", errors_by_group(evaluation.report["groups"])),
    ):
        write_atomic(folder / f"{name}.png", png(figure))
    write_atomic(folder / "confusion.csv", matrix.to_csv().encode())
    write_atomic(folder / "cases.csv", _csv(evaluation.cases))
    write_atomic(folder / "rejected.csv", evaluation.rejected.to_csv(index=False).encode())
    write_json(folder / "report.json", evaluation.report)


def _csv(cases: Any) -> bytes:
    """One row a case, without what needs more than a cell, or says the sex a second time."""
    return cases.drop(columns=["distribution", "is_male"], errors="ignore").to_csv(index=False).encode()


def _matrix(cases: Any) -> Any:
    from ensemble.measures import confusion

    return confusion(cases)


def _compare(options: argparse.Namespace) -> None:
    from ensemble.compare import compare
    from ensemble.predictions import is_table
    from ensemble.printed import ASIDES, comparison_text

    named = {"a": options.a, "b": options.b}
    evaluations = {side: evaluation_of(what, options.source, options) for side, what in named.items()}
    # a table first: what is wrong with it shows when it is read, and must not cost a reading of the locked test
    found_of = {
        side: evaluations[side](command="compare", purpose=f"to compare it with {named['b' if side == 'a' else 'a']}")
        for side in sorted(named, key=lambda side: not is_table(named[side]))
    }
    a, b = found_of["a"], found_of["b"]
    norms = b.norms if is_table(options.a) else a.norms  # one measure for both: that of the bundle that stands
    found = compare(a.cases, b.cases, norms=norms)
    report = {"a": options.a, "b": options.b, "source": options.source, **found}
    for name in ASIDES:
        if aside := {side: of.report[name] for side, of in (("a", a), ("b", b)) if name in of.report}:
            report[name] = aside
    print(json.dumps(report, indent=1, allow_nan=False) if options.json else comparison_text(report))
    for of in (a, b):
        _warn(of.report, options.json)
