"""What a person reads of an evaluation and of a comparison."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_COUNTED_ALONE = ("training_case", "site_case")
"""Reasons of `ensemble.unseen`, whose cases are many and need no line each."""
ASIDES = ("training_cases", "locked_test", "unit", "ages")
"""Of a report: what a person must know beside the figures, each with a sentence under ``says``."""
NO_INTERVAL = "-"
"""Of a mean of too few cases."""
FEW = "  -: a mean of fewer than 10 cases has no interval"


def tally(reasons: Mapping[Any, int]) -> str:
    """How often for which reason, such as ``3 x blank, 1 x not_a_hand``; empty where there is none."""
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.items())


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
        lines.append(
            f"  {group['sex']:<7} {low:>2} to {high:>2} years {group['n']:>5}  {group['mae_months']:6.2f}   "
            f"{between(group['mae_ci95'], '{:5.2f}'):<14}  {group['bias_months']:+7.2f}"
        )
    if not all(group["mae_ci95"] for group in report["groups"]):
        lines.append(FEW)
    lines += _coverage(report.get("coverage"))
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
    """What was not used: how much for which reason, and the first of it; the cases it has met are counted alone.

    Args:
        reasons: Number of files and labels by reason.
        files: A dict each, as `preprocessing.source.problem` makes it.
    """
    listed = [row for row in files if row["reason"] not in _COUNTED_ALONE]
    lines = [f"  rejected: {tally(reasons)}"]
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
    lines.append(_limits("limits of agreement", limits, report["agreement"]["limits_ci95"]))
    for level in report.get("coverage", {}).get("levels", ()):
        name = f"in the {level['level']} % interval"
        line = _line(name, level["share"], level["ci95"], "{:.1%}", "")
        missing = f"; {level['left_out']} of {report['n']} cases have none" if level["left_out"] else ""
        lines.append(f"{line}   (mean width {level['width_months']:.1f} months{missing})")
    return lines


def between(ci95: Sequence[float] | None, form: str = "{:.2f}") -> str:
    """Both ends of an interval, or a dash where there is none."""
    return NO_INTERVAL if ci95 is None else " to ".join(form.format(end) for end in ci95)


def _coverage(coverage: dict[str, Any] | None) -> list[str]:
    """One line a group, one column a level: the share held, with its interval."""
    if coverage is None:
        return []
    levels = [level["level"] for level in coverage["levels"]]
    titles = "".join(f"{f'in the {level} % interval':<30}" for level in levels)
    lines = ["", f"  sex     bone age          n   {titles}".rstrip()]
    for group in coverage["groups"]:
        low, high = group["bone_age_years"]
        held = {level["level"]: level for level in group["levels"]}
        cells = [_held(held[level], group["n"]) if level in held else NO_INTERVAL for level in levels]
        years = f"{low:>2} to {high:>2} years"
        lines.append(
            f"  {group['sex']:<7} {years} {group['n']:>5}   {''.join(f'{cell:<30}' for cell in cells)}".rstrip()
        )
    return lines


def _held(level: dict[str, Any], num_cases: int) -> str:
    of = f" of {level['n']}" if level["n"] < num_cases else ""
    return f"{100 * level['share']:.1f} %{of} ({between([100 * end for end in level['ci95']], '{:.1f}')})"


def _limits(name: str, limits: Sequence[float] | None, ci95: Sequence[Sequence[float]] | None) -> str:
    ends = "" if ci95 is None else f"; 95 % intervals {between(ci95[0], '{:+.1f}')}, {between(ci95[1], '{:+.1f}')}"
    return f"  {name:<22}   {between(limits, '{:+.1f}')} months (Bland-Altman{ends})"


def _line(name: str, value: float, ci95: list[float] | None, form: str, unit: str) -> str:
    line = f"  {name:<22} {form.format(value):>8} {unit:<7} 95 % interval {between(ci95, form)}"
    return re.sub(r"(?<=\d)%", " %", line)


def comparison_text(report: dict[str, Any]) -> str:
    """A comparison, as `ensemble.compare` reports it, with a, b and source beside."""
    agreement = report["agreement"]
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
            _limits("limits of agreement", agreement["limits_months"], agreement["limits_ci95"]),
            _line("within 6 months", agreement["within_6_months"], agreement["within_6_ci95"], "{:.1%}", ""),
            _line("within 12 months", agreement["within_12_months"], agreement["within_12_ci95"], "{:.1%}", ""),
            f"  concordance (Lin)        {agreement['concordance']:.3f}",
            *([] if report["mae_difference_ci95"] else [FEW]),
            *(line for of_side in said for line in ("", f"  {of_side}")),
        ]
    )


def _changed(title: str, test: dict[str, Any]) -> str:
    return (
        f"  {title:<22} {test['before']} of a, {test['after']} of b: {test['gained']} gained, {test['lost']} lost, "
        f"McNemar p = {test['p']:g}"
    )
