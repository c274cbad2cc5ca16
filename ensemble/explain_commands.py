"""The command ``explain``: maps of one radiograph, or of some of a labelled folder, as pictures and figures."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.arguments import add_bundle
from ensemble.pass_marks import RULES, in_words, judge
from preprocessing.sources import add_options, options_of
from preprocessing.storage import AnyPath, as_path, write_atomic, write_json

if TYPE_CHECKING:
    from ensemble.bundle import Bundle


def add(commands: Any) -> None:
    """Add it to a parser's commands."""
    parser = commands.add_parser("explain", help="show where in a radiograph the answer comes from")
    add_bundle(parser)
    parser.add_argument("source", help="one radiograph (then --sex is needed), or labelled pictures")
    parser.add_argument("out", help="folder for a PNG and a JSON file a case, and a summary")
    parser.add_argument("--sex", choices=("male", "female"), help="of the one radiograph")
    parser.add_argument(
        "--limit", type=int, default=12, help="cases of a folder, spread by bone age, locked ones by id (default 12)"
    )
    parser.add_argument("--no-checks", action="store_true", help="draw the maps only: a tenth of the time")
    add_options(parser)
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> None:
    from ensemble.explain import explain
    from ensemble.faithful import check
    from ensemble.overlay import draw
    from ensemble.predictor import Predictor
    from ensemble.registry import named_bundle
    from preprocessing.charts import png
    from preprocessing.limits import read_limited
    from preprocessing.radiograph import RadiographError

    bundle = named_bundle(options.bundle, options.version)
    cases = _cases(options, bundle)
    predictor, out = Predictor(bundle), as_path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, (name, path, sex, reference) in enumerate(cases, start=1):
        try:
            explanation = explain(predictor, read_limited(path), sex)
        except RadiographError as error:
            print(f"{name}: refused, {error}")
            rows.append({"case_id": name, "refused": error.code, "detail": str(error)})
            continue
        checks = () if options.no_checks else check(predictor, explanation)
        stem = file_stem(number, name)
        write_atomic(out / f"{stem}.png", png(draw(explanation, checks, reference_months=reference)))
        row = {
            "case_id": name,
            "picture": f"{stem}.png",
            "sex": sex,
            "bone_age_months": round(explanation.prediction.bone_age_months, 4),
            "reference_months": reference,
            "version": explanation.prediction.version,
            "views": [
                {
                    "view": view.view,
                    "share_of_answer": round(view.weight, 4),
                    "members": list(view.seen_by),
                    **(_judged(checks[number].to_dict()) if checks else {}),
                }
                for number, view in enumerate(explanation.views)
            ],
        }
        write_json(out / f"{stem}.json", row)
        rows.append(row)
        print(f"{name}: {explanation.prediction.bone_age}, {out / stem}.png")
    found = [] if options.no_checks else summary([view for row in rows for view in row.get("views", [])])
    write_json(out / "summary.json", {"cases": rows, "rules": RULES, "mean": found})
    for mean in found:
        print("\n".join(lines(mean)))
    if all("refused" in row for row in rows):
        reasons = "; ".join(f"{row['case_id']}: {row['detail']}" for row in rows[:3])
        raise ValueError(f"None of {len(rows)} radiographs could be explained. {reasons or 'The source has none.'}")


def file_stem(number: int, name: str) -> str:
    """A file's name for a case, whatever its id holds: its number makes it the only one, and none leaves the folder."""
    return f"{number:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:80]}"


def _cases(options: argparse.Namespace, bundle: "Bundle") -> list[tuple[str, AnyPath, str, float | None]]:
    """Name, file, sex and reference of each radiograph to explain; no reference of the bundle's locked test."""
    path = as_path(options.source)
    if path.is_file() and options.sex:
        return [(path.stem, path, options.sex, None)]
    if path.is_file() and path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{path} is one radiograph: say its sex, with --sex male or --sex female.")
    from ensemble.locked import without_references
    from preprocessing.sources import read_source

    if options.limit < 1:
        raise ValueError(f"--limit must be 1 or more, got {options.limit}.")
    source, said = without_references(read_source(path, options_of(options)), bundle)
    if said:
        print(f"ensemble: {said}", file=sys.stderr)
    # those without a reference stand last, by id: which of them are drawn, and their order, tell nothing of it
    order = source.cases["bone_age_months"].to_numpy().argsort(kind="stable")
    chosen = np.unique(np.linspace(0, len(order) - 1, min(options.limit, len(order))).round().astype(int))
    rows = order[chosen]
    cases, paths = source.cases.to_dict("records"), source.paths
    chosen_cases = ((cases[row], source.folder / paths[row]) for row in rows)
    return [(case["case_id"], file, case["sex"], _known(case["bone_age_months"])) for case, file in chosen_cases]


def _known(months: float) -> float | None:
    return None if np.isnan(months) else float(months)


def _judged(checks: dict[str, Any]) -> dict[str, Any]:
    return {"checks": checks, "passed": judge(checks)}


def summary(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each view, every figure's mean over the cases that have it, how many cases pass, and what the means pass.

    Shuffled weights count by size: the sign turns with the bone age, and a mean of it would hide what is there.

    Args:
        views: As a case's file lists them, of all cases.
    """
    found = []
    for name in dict.fromkeys(view["view"] for view in views):
        own = [view for view in views if view["view"] == name]
        checks = [view["checks"] for view in own]
        hands = [each["hand_share"] for each in checks if each["hand_share"] is not None]
        mean: dict[str, Any] = {"view": name, "share_of_answer": own[0]["share_of_answer"], "n": len(own)}
        mean["hand_share"] = round(float(np.mean(hands)), 4) if hands else None
        for figure in ("inside", "deletion_months", "insertion_months", "agreement"):
            mean[figure] = _means([each[figure] for each in checks])
        mean["shuffled"] = _means([{key: abs(value) for key, value in each["shuffled"].items()} for each in checks])
        mean["passed"] = judge(mean)
        mean["cases_passed"] = {
            method: sum(all(view["passed"][method].values()) for view in own) for method in mean["passed"]
        }
        found.append(mean)
    return found


def _means(of_cases: list[dict[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for figures in of_cases for name in figures))
    return {name: round(float(np.mean([each[name] for each in of_cases if name in each])), 4) for name in names}


def lines(mean: dict[str, Any]) -> list[str]:
    """A view's means as a table for a person, with the rules in words beneath."""
    hand = "" if mean["hand_share"] is None else f"; the hand covers {100 * mean['hand_share']:.0f} % of the picture"
    table = [
        f"mean of {mean['n']} cases, view {mean['view']} ({100 * mean['share_of_answer']:.0f} % of the answer){hand}",
        f"{'map':<20} on the hand  deletion  insertion  shuffled  agreement  all marks  by the means",
    ]
    for name in mean["deletion_months"]:
        figures = [
            f"{100 * mean['inside'][name]:9.0f} %" if name in mean["inside"] else " " * 11,
            f"{mean['deletion_months'][name]:8.1f}",
            f"{mean['insertion_months'][name]:9.1f}",
        ]
        if name in mean["passed"]:
            figures += [
                f"{mean['shuffled'][name]:8.2f}",
                f"{mean['agreement'][name]:9.2f}",
                f"{mean['cases_passed'][name]:4d} of {mean['n']:<2d}",
                in_words(mean["passed"][name]),
            ]
        table.append(f"{name:<20} " + "  ".join(figures).rstrip())
    return [*table, "A map passes", *(f"  {check:<10} where {rule}" for check, rule in RULES.items())]
