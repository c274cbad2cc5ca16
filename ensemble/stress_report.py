"""What a person sees of a stress test: a table, a drawing, and one page with the altered radiographs beside both."""

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from ensemble.alterations import Alteration, png8
from ensemble.material import levels
from ensemble.printed import FEW, between, tally
from preprocessing import page
from preprocessing.charts import ACCENT, FEMALE, GREY, INK, empty, plain, png, svg
from preprocessing.limits import read_limited
from preprocessing.radiograph import RadiographError
from preprocessing.sources import Source
from preprocessing.storage import AnyPath, write_atomic


def write(report: dict[str, Any], source: Source, suite: list[Alteration], folder: AnyPath) -> None:
    """Write ``stress.csv``, ``stress.png`` and ``stress.html`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "stress.csv", table_csv(report).encode())
    figure = drawing(report)
    write_atomic(folder / "stress.png", png(figure))
    template = page.environment(Path(__file__).parent / "templates").get_template("stress.html")
    pictures = [{"name": name, "src": page.embed(data)} for name, data in examples(source, suite)]
    rendered = template.render(
        report=report, drawing=svg(figure, "Change of error and refusals by alteration"), pictures=pictures
    )
    write_atomic(folder / "stress.html", rendered.encode())


def drawing(report: dict[str, Any]) -> Figure:
    """Change of the error with its interval on the left, shares refused and failed (dark) on the right."""
    rows = report["alterations"]
    figure = empty(9.0, 0.6 + 0.19 * len(rows))
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 1))
    left, right = (plain(figure.add_subplot(grid[0, index])) for index in range(2))
    for place, row in enumerate(rows):
        colour = GREY
        if "mae_change_months" in row:
            test = row["significant_errors"]
            colour = FEMALE if test["gained"] > test["lost"] and test["p_holm"] < 0.05 else ACCENT
            if row["mae_change_ci95"]:
                left.plot(row["mae_change_ci95"], [place, place], color=colour, linewidth=1.6, alpha=0.6)
            left.plot([row["mae_change_months"]], [place], "o", color=colour, markersize=3.5)
        wanted = row["is_wrong"]
        right.barh(place, 100 * row["rejected"], 0.7, color=ACCENT if wanted else FEMALE, alpha=0.8 if wanted else 0.6)
        right.barh(place, 100 * row["failed"], 0.7, left=100 * row["rejected"], color=INK)
    edges = [at for at in range(1, len(rows)) if rows[at]["family"] != rows[at - 1]["family"]]
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        for at in edges:
            axes.axhline(at - 0.5, color=GREY, linewidth=0.4)
    left.axvline(0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(rows)), [f"{row['family']}  {row['level']}" for row in rows])
    left.tick_params(axis="y", labelsize=7, length=0)
    left.set_xscale("symlog", linthresh=5)
    left.set_xticks([-5, -2, 0, 2, 5, 10, 20, 50], ["−5", "−2", "0", "2", "5", "10", "20", "50"])
    left.set(xlabel="change of the mean absolute error, months")
    right.set_yticks([])
    right.set(xlabel="refused (failed: dark), %", xlim=(0, 100))
    return figure


def table_csv(report: dict[str, Any]) -> str:
    """One row an alteration."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    simple = ("family", "level", "is_wrong", "asked", "answered", "rejected", "failed", "warned", "mae_months")
    moved = ("shift_months", "moved_6_months", "moved_12_months", "coverage_90")
    tested = ("before", "after", "gained", "lost", "p", "p_holm")
    writer.writerow(
        [*simple, "mae_change_months", "change_low", "change_high", *moved, *(f"significant_{name}" for name in tested)]
    )
    for row in report["alterations"]:
        test = row.get("significant_errors", {})
        ends = row.get("mae_change_ci95") or ["", ""]
        writer.writerow(
            [
                *(row.get(n, "") for n in simple),
                row.get("mae_change_months", ""),
                *ends,
                *(row.get(n, "") for n in moved),
                *(test.get(n, "") for n in tested),
            ]
        )
    return buffer.getvalue()


def table_text(report: dict[str, Any]) -> str:
    """The same for a person, narrower."""
    clean = report["clean"]
    covered = "" if clean["coverage_90"] is None else f", {clean['coverage_90']:.1%} inside the 90 % interval"
    lines = [
        f"{report['subject']} on {report['n']} cases, {report['undecoded']} of them without a picture: as they are "
        f"{clean['rejected']:.1%} refused, {clean['failed']:.1%} failed{_reasons(clean)}, MAE "
        f"{clean['mae_months']:.2f} months (95 % interval {between(clean['mae_ci95'])}), "
        f"{clean['significant_errors']} clinically significant errors{covered}",
        *_ages(report["stated_ages"]),
        "",
        f"{'alteration':<40} refused failed warned  change of MAE, 95 %      shift  >12 mo  signif. errors  p (Holm)  "
        "in 90 %",
    ]
    for row in report["alterations"]:
        head = f"{row['family'] + ': ' + row['level']:<40} {row['rejected']:>7.0%} {row['failed']:>6.0%} "
        head += "     -" if row["warned"] is None else f"{row['warned']:>6.0%}"
        if "mae_change_months" not in row:
            lines.append(head)
            continue
        test = row["significant_errors"]
        covered = "" if row["coverage_90"] is None else f"{row['coverage_90']:>7.0%}"
        change = f"{row['mae_change_months']:+6.2f} ({between(row['mae_change_ci95'], '{:+.2f}')})"
        lines.append(
            f"{head}  {change:<24} {row['shift_months']:+6.1f} {row['moved_12_months']:>6.0%}  "
            f"{test['before']:>5} to {test['after']:<5} {test['p_holm']:>9.3g} {covered}"
        )
    if not all([clean["mae_ci95"], *(row.get("mae_change_ci95", True) for row in report["alterations"])]):
        lines.append(FEW)
    return "\n".join(lines + _standing(report))


def _ages(stated: dict[str, int] | None) -> list[str]:
    """What was stated of the chronological age; nothing where it was not."""
    if stated is None:
        return []
    return [
        f"stated with each case: the chronological age, of {stated['of_source']} cases as the source says it; of "
        f"{stated['of_reference']} the reference bone age stands in, which flatters a system that uses the age"
    ]


def _standing(report: dict[str, Any]) -> list[str]:
    """What else a bundle was examined by; nothing of an endpoint."""
    if "standing" not in report:
        return []
    stands, source = report["standing"], report["source"]
    lines = [
        "",
        f"As they are, {stands['asked'] - stands['n']} of {stands['asked']} cases were not answered{_reasons(stands)}; "
        f"the data: {source['name']}, {source['num_cases']} cases, {source['seen']} of them it was "
        f"trained or calibrated on, sha256 {source['cases_sha256'][:12]}...",
    ]
    for name, profile in stands["profiles"].items():
        levels = profile["coverage"]["levels"] if profile["coverage"] else []
        held = ", ".join(f"{level['share']:.1%} inside the {level['level']} % interval" for level in levels)
        lines.append(f"  profile {name}: MAE {profile['mae_months']:.2f} months, {held or 'no intervals'}")
    return lines


def _reasons(part: dict[str, Any]) -> str:
    found = tally(part["reasons"])
    return f" ({found})" if found else ""


def examples(source: Source, suite: list[Alteration], *, seed: int = 0, side: int = 160) -> list[tuple[str, bytes]]:
    """The first case that can be decoded after each alteration, as small PNGs, with their names."""
    for path in source.paths:
        try:
            original = read_limited(source.folder / path)
            image_HW = levels(original)
        except (RadiographError, OSError):
            continue
        found = []
        for index, alteration in enumerate(suite):
            try:
                altered = levels(alteration.file(original, image_HW, np.random.default_rng([seed, 0, index])))
            except RadiographError:
                continue
            scale = side / max(altered.shape)
            size = max(1, round(altered.shape[1] * scale)), max(1, round(altered.shape[0] * scale))
            found.append((f"{alteration.family}: {alteration.level}", png8(cv2.resize(altered, size))))
        return found
    return []
