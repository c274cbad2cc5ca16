"""What a bundle says of itself to a person, written when it is built and hashed with it: card.md and report.html.

Both are made of the manifest and of the evidence files alone. They hold no radiograph and do not touch the locked test,
whose references are read later, and once: ``card --evaluation`` and ``report`` show that.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble import card
from ensemble.bundle import OOF_FILE
from ensemble.chronology import NORMS_FILE, PUBLISHED, read_norms
from ensemble.figures import scale
from ensemble.measures import figures
from ensemble.pareto import Front, drawing
from ensemble.predictor import in_words
from preprocessing import page
from preprocessing.charts import svg
from search.figures import agreement, bland_altman

CARD, REPORT = "card.md", "report.html"
PARETO_FILE = "evidence/pareto.csv"
_METHODS = {
    "single": "best single trial",
    "equal": "equal weights",
    "least_squares": "least squares",
    "greedy": "bagged greedy",
}


def write_documents(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write card and report of a bundle that is being written.

    Args:
        folder: Of the bundle; the evidence files are there.
        content: Of its manifest, all but the two.

    Returns:
        The content with their sha256 among its files.
    """
    files = {name: sha256 for name, sha256 in content["files"].items() if name not in (CARD, REPORT)}
    content = {**content, "files": files}
    for name, text in ((CARD, card.render(content)), (REPORT, _page(folder, content))):
        (folder / name).write_text(text, encoding="utf-8")
        files[name] = hashlib.sha256(text.encode()).hexdigest()
    return content


def selection_scores(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a scale: the error by BBC-CV of every method, and the optimistic one of what was chosen."""
    rows = []
    for name, found in evidence.get("bias_corrected_by_method", {}).items():
        is_chosen = name == evidence["method"]
        rows.append(
            {
                "name": _METHODS[name] + (", chosen" if is_chosen else ""),
                "kind": "ours" if is_chosen else "other",
                "value": found["value"],
                "ci95": found["ci95"],
                "note": "",
            }
        )
    if not rows:
        for name, key in (("single", "best_single_oof_mae_months"), ("equal", "equal_weights_oof_mae_months")):
            of_method = {"name": _METHODS[name], "kind": "hollow", "value": evidence[key], "ci95": None}
            rows.append({**of_method, "note": "on the same cases"})
    if (corrected := evidence["bias_corrected_mae_months"]) and evidence["method_asked"] == "auto":
        whole = {"name": "with the choice of method", "kind": "ours", "note": ""}
        rows.append({**whole, "value": corrected["value"], "ci95": corrected["ci95"]})
    if served := evidence.get("as_served_mae_months"):
        of_served = {"name": "as served", "kind": "ours", "value": served["value"], "ci95": served["ci95"]}
        rows.append({**of_served, "note": "estimated: members as means of their fold models"})
    optimistic = evidence["ensemble_oof_mae_months"]["value"]
    of_chosen = {"name": "chosen, same cases", "kind": "hollow", "value": optimistic, "ci95": None}
    return scale([*rows, {**of_chosen, "note": "optimistic, not to be quoted"}])


def pareto_drawing(folder: Path, files: dict[str, str]) -> Any:
    """The front of error against work as part of a page; None where the bundle has none."""
    if PARETO_FILE not in files:
        return None
    front = Front.read((folder / PARETO_FILE).read_bytes())
    return svg(drawing(front), "Error by BBC-CV against the work of one radiograph")


def _page(folder: Path, content: dict[str, Any]) -> str:
    cases = pd.read_parquet(io.BytesIO((folder / OOF_FILE).read_bytes()))
    is_answered = "answered_months" in cases  # a site's bundle may start from one that was built before this was kept
    if is_answered:
        cases = cases.assign(predicted_months=cases["answered_months"])
    calibration = content["calibration"]
    own = (folder / NORMS_FILE).read_bytes() if NORMS_FILE in content["files"] else b""
    norms = read_norms(own, is_published=True) if own else PUBLISHED  # a site's bundle has those of its parent
    template = page.environment(Path(__file__).parent / "templates", words=in_words).get_template("bundle.html")
    return template.render(
        members=[member for member in content["members"] if member["weight"]],
        students=[member for member in content["members"] if not member["weight"]],
        evidence=content["evidence"],
        provenance=content["provenance"],
        profiles=content["profiles"],
        views=content["views"],
        recipe_hash=content["recipe_hash"],
        measured=figures(cases, norms=norms),
        coverage=calibration["intervals"]["out_of_fold"],
        served=calibration["intervals"].get("served"),
        bias=calibration["bias"],
        is_answered=is_answered,
        site=calibration["site"],
        scores=selection_scores(content["evidence"]),
        pareto=pareto_drawing(folder, content["files"]),
        pictures={
            "agreement": svg(agreement(cases), "Predicted against reference bone age, out of fold"),
            "bland_altman": svg(bland_altman(cases), "Bland-Altman plot, out of fold"),
        },
    )
