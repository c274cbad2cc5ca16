"""The model card of a bundle, as Markdown: what it is for, what it is made of, what was measured, where it comes from.

Source of the form: Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

import math
from typing import Any

from ensemble.printed import asides, between
from preprocessing.storage import AnyPath, read_json

INTENDED = """Estimates the bone age of a child from one radiograph of the left hand with wrist, as Greulich and Pyle's
atlas would be read, together with the sex. For research, and for measuring it on data of one's own.

Not for clinical use: no regulator has cleared it. Not for adults, other bones, photographs of screens, or hands with
fractures, implants or skeletal dysplasia, of which its training data tell nothing. It must not be used to decide
whether a person is of age: the spread between children of one age is wider than the question allows."""

_TITLES = {"bias_corrected_mae_months": "mae months, corrected for the selection (BBC-CV)"}
"""Of figures whose names would be taken for something else: no correction of the months is meant."""


class CardError(ValueError):
    """The evaluation is none of the bundle."""


def render(manifest: dict[str, Any], evaluation: dict[str, Any] | None = None) -> str:
    """The card.

    Args:
        manifest: Of the bundle it is about; without a version while that bundle is written, since the version counts
            the card too.
        evaluation: From `ensemble.evaluate`, where the bundle has been measured; its own data and number of cases
            stand beside each figure.
    """
    provenance, calibration, recipe = manifest["provenance"], manifest["calibration"], manifest["recipe"]
    version = manifest.get("version")
    lines = [f"# Bone-age ensemble {version}" if version else "# Bone-age ensemble", ""]
    if not version:
        lines += ["Its version stands in manifest.json: a hash of all that is in the bundle, this card included.", ""]
    lines += ["## Intended use", "", INTENDED, "", "## What it is made of", ""]
    lines += ["| study | trial | weight | network | models | started from |", "|---|---|---|---|---|---|"]
    for member in (member for member in manifest["members"] if member["weight"]):
        models = f"{len(member['files'])} fold models" if member["fitted"] == "folds" else "one, trained on all folds"
        lines.append(
            f"| {member['study']} | {member['trial']} | {member['weight']:.3f} | {member['config']['backbone']} | "
            f"{models} | {member['licence']} |"
        )
    for student in (member for member in manifest["members"] if not member["weight"]):
        lines += [
            "",
            f"{student['study']}, trial {student['trial']} ({student['config']['backbone']}, {len(student['files'])} "
            f"fold models; started from {student['licence']}), was taught by them. It answers for the profile `fast` "
            "alone, and is no member of the ensemble.",
        ]
    lines += [
        "",
        f"The members become one distribution by the rule `{manifest['combination']['rule']}`; profiles: "
        f"{', '.join(manifest['profiles'])}; test-time views: {', '.join(manifest['views'])}.",
        f"A radiograph is standardised to {recipe['size']} pixels, views {', '.join(recipe['views'])}.",
        _of_calibration(calibration) + _of_fast(manifest["profiles"]),
        "",
        "## Figures from its training cases",
        "",
        "Out of fold: each prediction by a model that never saw the case. Members were chosen on what is *optimistic*."
        + _before(calibration),
        "",
        "| figure | value | 95 % interval |",
        "|---|---|---|",
        *_rows(manifest["evidence"]),
    ]
    lines += _evaluated(evaluation) if evaluation else []
    lines += ["", "## Provenance", "", f"- cohort `{provenance['cohort_hash']}`"]
    lines += [f"- study {study['name']} `{study['study_hash']}`" for study in provenance["studies"]]
    lines += [f"- recipe `{manifest['recipe_hash']}`"]
    lines += [f"- {name}: {licence}" for name, licence in sorted(manifest["licences"].items())]
    lines += ["- " + ", ".join(f"{name} {version}" for name, version in sorted(provenance["packages"].items()))]
    return "\n".join(lines) + "\n"


def read_evaluation(path: AnyPath, version: str) -> dict[str, Any]:
    """The report of an evaluation, for `render`.

    Args:
        path: ``report.json`` of ``python -m ensemble evaluate --out``.
        version: Of the bundle that it must be about.

    Raises:
        CardError: It is of another bundle, or no such report.
        StorageError: It is missing, or no JSON.
    """
    report = read_json(path)
    anew = "Evaluate it anew: python -m ensemble evaluate --out FOLDER writes it as report.json."
    if not isinstance(report, dict) or "bundle" not in report:
        raise CardError(f"{path} is no report of a bundle's evaluation. {anew}")
    if report["bundle"] != version:
        raise CardError(f"The evaluation is of {report['bundle']}, not of {version}. {anew}")
    try:
        _evaluated(report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CardError(f"{path} is incomplete or wrong ({type(error).__name__}: {error}). {anew}") from None
    return report


def _evaluated(report: dict[str, Any]) -> list[str]:
    lines = ["", f"## Measured on {report['n']} cases ({report['source']})", "", *_measured(report)]
    return lines + [line for said in asides(report) for line in ("", said)]


def _of_calibration(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "No interval is calibrated."
    if site := calibration["site"]:
        found = site["evidence"]
        rejected = f" ({found['rejected']} rejected)" if found.get("rejected") else ""
        of_site = (
            f"Calibrated to the site {site['name']}, on {found['n']} of its cases{rejected}, from {site['parent']}."
        )
        return of_site + _of_bias(calibration, "Before that, the")
    return f"Intervals are calibrated out of fold.{_of_served(calibration)}{_of_bias(calibration)}"


def _of_bias(calibration: dict[str, Any], whose: str = "The") -> str:
    """Which correction of the months is served, and what it gains on cases that it was not fitted to."""
    if not _is_corrected(calibration):
        return ""
    bias, found = calibration["bias"]["correction"], calibration["bias"]["evidence"]
    of_sexes = ", ".join(
        f"{name} {bias[sex]['offset_months']:+.1f} months"
        + (f" at 10 years and {12 * bias[sex]['slope']:+.2f} more for each further year" if bias[sex]["slope"] else "")
        for sex, name in (("female", "girls"), ("male", "boys"))
    )
    return (
        f" {whose} months are corrected, {of_sexes}: in nested validation the mean absolute error goes from "
        f"{found['mae_before_months']:.2f} to {found['mae_after_months']:.2f} months, a gain of "
        f"{found['gain_months']:.2f} (95 % interval {between(found['gain_ci95'])})."
    )


def _is_corrected(calibration: dict[str, Any] | None) -> bool:
    return bool(calibration and calibration["bias"] and calibration["bias"]["correction"])


def _before(calibration: dict[str, Any] | None) -> str:
    """Which corrections of an answer the errors out of fold are without."""
    later = ["the correction of the months"] if _is_corrected(calibration) else []
    later += ["the site's own correction"] if calibration and calibration["site"] else []
    return f" Errors are those before {' and '.join(later)}." if later else ""


def _of_served(calibration: dict[str, Any]) -> str:
    """How intervals differ from those of single models, which the figures out of fold are of."""
    served = calibration["intervals"].get("served")
    if not served:
        return ""
    return (
        " That is for single fold models; they are narrower for the mean that is served, from which each strays by "
        f"{math.sqrt(served['ambiguity_months2']):.1f} months on {served['pictures']} pictures of the locked test, "
        "whose references were not read."
    )


def _of_fast(profiles: dict[str, Any]) -> str:
    fitted = profiles.get("fast", {}).get("calibration")
    if fitted is None:
        return " The fast profile answers without an interval." if "fast" in profiles else ""
    held = next(level for level in fitted["intervals"]["out_of_fold"]["levels"] if level["level"] == 90)
    return (
        f" The fast profile has its own: the 90 % one held {held['share']:.1%} of the cases that they were fitted on, "
        f"and is {held['width_months']:.1f} months wide.{_of_served(fitted)}{_of_bias(fitted, 'Its')}"
    )


def _rows(evidence: dict[str, Any]) -> list[str]:
    """Every single figure among the evidence; lists and tables stay in the manifest."""
    rows = []
    for name, found in evidence.items():
        value = found.get("value") if isinstance(found, dict) else found
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        ends = found.get("ci95") if isinstance(found, dict) else None
        interval = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
        optimistic = " (optimistic)" if isinstance(found, dict) and "ptimistic" in str(found.get("note", "")) else ""
        title = _TITLES.get(name, name.replace("_", " "))
        rows.append(f"| {title}{optimistic} | {value:,.6g} | {interval} |")
    return rows


def _measured(report: dict[str, Any]) -> list[str]:
    rows = ["| figure | value | 95 % interval |", "|---|---|---|"]
    for name, key in (
        ("mean absolute error, months", "mae"),
        ("bias, months", "bias"),
        ("root mean square, months", "rmse"),
    ):
        rows.append(f"| {name} | {report[f'{key}_months']:.2f} | {between(report[f'{key}_ci95'])} |")
    for months in (6, 12, 24):
        ends = between(report[f"within_{months}_ci95"], "{:.1%}")
        rows.append(f"| within {months} months | {report[f'within_{months}_months']:.1%} | {ends} |")
    wrong = report["significant_errors"]
    norms = f" by the norms of {wrong['norms']}" if "norms" in wrong else ""  # reports from before do not say
    ends = between(wrong["ci95"], "{:.1%}")
    rows.append(f"| clinically significant errors{norms} | {wrong['share']:.1%} | {ends} |")
    coverage = report.get("coverage")
    for level in coverage["levels"] if coverage else ():
        ends = between(level["ci95"], "{:.1%}")
        rows.append(f"| inside the {level['level']} % interval{_left_out(level)} | {level['share']:.1%} | {ends} |")
    rows += ["", "| sex | bone age | cases | error, months | 95 % interval | bias |", "|---|---|---|---|---|---|"]
    for group in report["groups"]:
        low, high = group["bone_age_years"]
        rows.append(
            f"| {group['sex']} | {low} to {high} years | {group['n']} | {group['mae_months']:.2f} | "
            f"{between(group['mae_ci95'])} | {group['bias_months']:+.2f} |"
        )
    if not all(group["mae_ci95"] for group in report["groups"]):
        rows += ["", "A mean of fewer than 10 cases has no interval."]
    return rows + (_coverage(coverage) if coverage else [])


def _coverage(coverage: dict[str, Any]) -> list[str]:
    """How often the intervals held, by sex and band of bone age; beside each share its own 95 % interval."""
    levels = [level["level"] for level in coverage["levels"]]
    rows = ["", "| sex | bone age | cases | " + " | ".join(f"inside the {level} % interval" for level in levels) + " |"]
    rows.append("|---" * (3 + len(levels)) + "|")
    for group in coverage["groups"]:
        low, high = group["bone_age_years"]
        held = {
            level["level"]: f"{level['share']:.1%} ({between(level['ci95'], '{:.1%}')}){_left_out(level)}"
            for level in group["levels"]
        }
        cells = " | ".join(held.get(level, "-") for level in levels)
        rows.append(f"| {group['sex']} | {low} to {high} years | {group['n']} | {cells} |")
    return rows


def _left_out(level: dict[str, Any]) -> str:
    missing = level.get("left_out", 0)  # reports from before do not say, and left none out
    return f", {missing} cases without" if missing else ""
