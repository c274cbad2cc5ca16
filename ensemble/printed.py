"""What a person reads of an evaluation and of a comparison."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.unseen import TRAINING_CASE

ASIDES = ("training_cases", "locked_test")
"""Of a report: what a person must know beside the figures, each with a sentence under ``says``."""


def asides(report: dict[str, Any]) -> list[str]:
    """Those sentences."""
    return [report[name]["says"] for name in ASIDES if name in report]


def evaluation_text(report: dict[str, Any]) -> str:
    """An evaluation, as `ensemble.evaluate` reports it."""
    lines = [
        f"{report.get('bundle') or report['predictions']} on {report['n']} cases ({report['source']}), "
        f"{report['rejected']} rejected",
        "",
        *_figures(report),
        "",
        "  sex     bone age          n     MAE   95 % interval     bias",
    ]
    for group in report["groups"]:
        low, high = group["bone_age_years"]
        mae_low, mae_high = group["mae_ci95"]
        lines.append(
            f"  {group['sex']:<7} {low:>2} to {high:>2} years {group['n']:>5}  {group['mae_months']:6.2f}   "
            f"{mae_low:5.2f} to {mae_high:5.2f}  {group['bias_months']:+7.2f}"
        )
    if len(report["styles"]) > 1:
        lines += ["", "  noticed of the picture    n     MAE    bias"]
        lines += [
            f"  {row['style']:<22} {row['n']:>4}  {row['mae_months']:6.2f}  {row['bias_months']:+6.2f}"
            for row in report["styles"]
        ]
    lines += [
        "",
        "  largest errors: " + ", ".join(f"{w['case_id']} {w['error_months']:+.0f}" for w in report["worst"][:5]),
    ]
    lines += [line for said in asides(report) for line in ("", f"  {said}")]
    if report["rejected"]:
        lines += ["", *rejected_lines(report["rejected_reasons"], report["rejected_files"])]
    return "\n".join(lines)


def rejected_lines(reasons: dict[str, int], files: Sequence[Mapping[Any, Any]]) -> list[str]:
    """What was not used: how much for which reason, and the first of it; the training cases are counted alone.

    Args:
        reasons: Number of files and labels by reason.
        files: A dict each, as `preprocessing.source.problem` makes it.
    """
    listed = [row for row in files if row["reason"] != TRAINING_CASE]
    lines = ["  rejected: " + ", ".join(f"{n} x {why}" for why, n in reasons.items())]
    lines += [f"    {row['file'] or row['case_id']}: {row['detail']}" for row in listed[:20]]
    return lines + ([f"    and {len(listed) - 20} more"] if len(listed) > 20 else [])


def _figures(report: dict[str, Any]) -> list[str]:
    """One line a figure, with its interval."""
    rows = [("mean absolute error", "mae_months", "mae_ci95", "{:.2f}", "months")]
    if "median_predictor_mae_months" in report:
        rows.append(("median predictor", "median_predictor_mae_months", "median_predictor_ci95", "{:.2f}", "months"))
    rows += [
        ("root mean square", "rmse_months", "rmse_ci95", "{:.2f}", "months"),
        ("bias", "bias_months", "bias_ci95", "{:+.2f}", "months"),
        ("within 6 months", "within_6_months", "within_6_ci95", "{:.1%}", ""),
        ("within 12 months", "within_12_months", "within_12_ci95", "{:.1%}", ""),
        ("within 24 months", "within_24_months", "within_24_ci95", "{:.1%}", ""),
        ("right year", "top1_year", "top1_year_ci95", "{:.1%}", ""),
        ("of the two likeliest", "top2_year", "top2_year_ci95", "{:.1%}", ""),
    ]
    lines = [_line(name, report[key], report[ci], form, unit) for name, key, ci, form, unit in rows if key in report]
    wrong, limits = report["significant_errors"], report["agreement"]["limits_months"]
    judged = f"{wrong['with_chronological_age']} by chronological age, the others by the reference"
    lines.append(_line("clinically significant", wrong["share"], wrong["ci95"], "{:.1%}", "") + f"   ({judged})")
    lines.append(f"    by the norms of {wrong['norms']}")
    lines.append(f"  limits of agreement      {limits[0]:+.1f} to {limits[1]:+.1f} months (Bland-Altman)")
    for level in report.get("coverage", {}).get("levels", ()):
        name = f"in the {level['level']} % interval"
        line = _line(name, level["share"], level["ci95"], "{:.1%}", "")
        lines.append(f"{line}   (mean width {level['width_months']:.1f} months)")
    return lines


def _line(name: str, value: float, ci95: list[float], form: str, unit: str) -> str:
    low, high = (form.format(bound) for bound in ci95)
    line = f"  {name:<22} {form.format(value):>8} {unit:<7} 95 % interval {low} to {high}"
    return re.sub(r"(?<=\d)%", " %", line)


def comparison_text(report: dict[str, Any]) -> str:
    """A comparison, as `ensemble.compare` reports it, with a, b and source beside."""
    agreement = report["agreement"]
    low, high = agreement["limits_months"]
    sides = [{name: report[name][side] for name in ASIDES if side in report.get(name, {})} for side in ("a", "b")]
    said = [f"{side}: {line}" for side, found in zip("ab", sides, strict=True) for line in asides(found)]
    return "\n".join(
        [
            f"a: {report['a']}",
            f"b: {report['b']}",
            f"{report['n']} cases answered by both; a alone {report['only_a']}, b alone {report['only_b']}",
            "",
            _line("MAE of a", report["mae_a_months"], report["mae_a_ci95"], "{:.2f}", "months"),
            _line("MAE of b", report["mae_b_months"], report["mae_b_ci95"], "{:.2f}", "months"),
            _line(
                "b minus a, paired", report["mae_difference_months"], report["mae_difference_ci95"], "{:+.2f}", "months"
            ),
            f"  Wilcoxon signed-rank     p = {report['wilcoxon_p']:g}",
            _changed("clinically significant", report["significant_errors"]),
            f"    by the norms of {report['norms']}",
            _changed("above 12 months", report["above_12_months"]),
            _line(
                "b says more than a by",
                agreement["difference_months"],
                agreement["difference_ci95"],
                "{:+.2f}",
                "months",
            ),
            f"  agreement                limits {low:+.1f} to {high:+.1f} months, concordance "
            f"{agreement['concordance']:.3f}, within 6 months of each other {agreement['within_6_months']:.1%}",
            *(line for of_side in said for line in ("", f"  {of_side}")),
        ]
    )


def _changed(title: str, test: dict[str, Any]) -> str:
    return (
        f"  {title:<22} {test['before']} of a, {test['after']} of b: {test['gained']} gained, {test['lost']} lost, "
        f"McNemar p = {test['p']:g}"
    )
