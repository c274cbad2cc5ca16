"""One page and its tables about a study: ``python -m search report STUDY``, also while it runs.

The locked test is never read: errors are those of the out-of-fold tables, pictures those of the cases in them.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from preprocessing import page
from preprocessing.charts import svg
from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, StorageError, as_path, write_atomic
from search import figures, figures_study, leaderboard
from search.importance import MIN_BEST, MIN_TRIALS, importances
from search.metrics import beside_median, limits_of_agreement, measure
from search.passes import COMPARED, account, learning_curves
from search.space import unused
from search.trial import FinishedTrial, all_outcomes, finished_trial, finished_trials, read_study

PAGE = "report.html"
NUM_WORST = 12
"""Largest errors that are shown with their pictures."""
NUM_LISTED = 15
"""Trials at the head of the leaderboard; the others are folded away."""
NUM_SETTINGS = 6
"""Settings in the leaderboard; the table ``leaderboard.csv`` has all of them."""
NUM_CORRELATED = 20
"""Best trials in the correlation of errors."""

DRAWINGS = (
    *("groups", "agreement", "bland_altman", "confusion"),  # of the best complete trial
    *("curves", "parallel", "importance", "correlations", "passes"),  # of all trials
)
"""Names of the drawings; one that a study has no matter for yet is missing on its page, which says why."""


@dataclass(frozen=True)
class StudyReport:
    """The page and the tables behind its drawings."""

    html: str
    tables: dict[str, pd.DataFrame]
    """By file name, without ``.csv``."""

    def write(self, folder: AnyPath) -> AnyPath:
        """Write ``report.html`` and one CSV a table; returns where the page is."""
        for name, table in self.tables.items():
            write_atomic(folder / f"{name}.csv", table.to_csv(index=False).encode())
        write_atomic(folder / PAGE, self.html.encode())
        return folder / PAGE


def report(
    study: str | Path | AnyPath, *, cohort: str | Path | AnyPath | None = None, storage: str = ""
) -> StudyReport:
    """Describe a study as it stands.

    Args:
        study: Its folder; nothing in it is changed.
        cohort: Where its cohort is now, for the pictures; None: where it was. Where it cannot be opened, or is another
            one, the page says so in their place.
        storage: URL of the study's database with its password, where it needs one.

    Raises:
        StorageError: No study is there, its database cannot be reached, or a complete trial's table is damaged.
    """
    root = as_path(study)
    about, outcomes = read_study(root), all_outcomes(root)
    curves = learning_curves(root, outcomes, about["num_folds"])
    costs = account(outcomes, curves, about["num_folds"])
    states = {outcome["number"]: outcome["state"] for outcome in outcomes}
    finished = finished_trials(root, distributions=False)  # of hundreds of trials they do not fit into memory
    trials = {trial.number: trial for trial in finished if states.get(trial.number) == "complete"}
    board = leaderboard.ranked(list(trials.values()))
    best = _whole(trials[int(board["number"][0])], about["num_folds"]) if len(board) else None
    shares, num_told, num_earlier = importances(root, about["name"], storage or about.get("storage", ""))
    settings = leaderboard.searched_settings([outcome["config"] for outcome in outcomes])
    tables = {
        "leaderboard": _leaderboard_table(board, outcomes, costs),
        "learning_curves": curves,
        "importance": pd.DataFrame({"setting": list(shares), "importance": list(shares.values())}),
    }
    second, flattery = leaderboard.second_partition(list(trials.values()))
    if flattery:
        tables["second_partition"] = second
    configs = {outcome["number"]: outcome["config"] for outcome in outcomes}
    drawings: dict[str, Markup | None] = dict.fromkeys(DRAWINGS)
    if len(curves):
        drawings["curves"] = svg(
            figures_study.learning_curves(curves, states, best.number if best else None, about["num_folds"]),
            "Learning curves: error against image passes, one panel a fold, one line a trial",
        )
        drawings["passes"] = svg(figures_study.passes(costs), "Image passes spent and saved; the figures stand above")
    if shares:
        drawings["importance"] = svg(figures_study.importance(shares), "Importance of each setting, largest first")
    if best and settings:
        maes = dict(zip(board["number"].astype(int), board["mae_months"], strict=True))
        drawings["parallel"] = svg(
            figures_study.parallel_coordinates(configs, maes, _by_importance(settings, shares)),
            "Parallel coordinates: settings of each trial, ending at its error",
        )
    details = _of_best(best, list(trials.values()), drawings, tables) if best else {}
    if len(trials) > 1:
        order = [trials[int(number)] for number in board["number"][:NUM_CORRELATED]]
        matrix = leaderboard.error_correlation(order)
        tables["error_correlation"] = matrix.rename_axis("trial").reset_index()
        drawings["correlations"] = svg(
            figures_study.correlations(matrix), "Correlation of the errors of any two trials"
        )
        off_diagonal = matrix.to_numpy()[~np.eye(len(matrix), dtype=bool)]
        details["correlation"] = {
            "mean": float(off_diagonal.mean()), "low": float(off_diagonal.min()), "high": float(off_diagonal.max()),
        }  # fmt: skip
    listed = _by_importance(settings, shares)[:NUM_SETTINGS]
    pictures, why_no_pictures = _pictures(
        cohort or about["cohort"], about, details.get("worst", []), best.config.view if best else ""
    )
    template = page.environment(Path(__file__).parent / "templates").get_template("study.html")
    html = template.render(
        study=about,
        written=time.strftime("%Y-%m-%d %H:%M"),
        counts={state: list(states.values()).count(state) for state in ("complete", "stopped", "failed", "running")},
        num_begun=len(states),
        rows=tables["leaderboard"].to_dict("records"),
        num_listed=NUM_LISTED,
        settings={
            number: {name: config[name] for name in listed if name in config and name not in unused(config)}
            for number, config in configs.items()
        },
        best=best,
        second=second.to_dict("records"),
        flattery=flattery,
        details=details,
        drawings=drawings,
        pictures=pictures,
        why_no_pictures=why_no_pictures,
        importance={"trials": num_told, "earlier": num_earlier, "least": MIN_TRIALS, "best": MIN_BEST},
        costs=_costs(costs),
        ended=[outcome for outcome in outcomes if outcome["state"] in ("stopped", "failed")],
        tables=sorted(tables),
    )
    return StudyReport(html, tables)


def _whole(trial: FinishedTrial, num_folds: int) -> FinishedTrial:
    """The same with all columns of its out-of-fold table."""
    return replace(trial, oof=finished_trial(trial.folder, trial.number, trial.config, num_folds, None).oof)


def _leaderboard_table(board: pd.DataFrame, outcomes: list[dict[str, Any]], costs: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: complete ones by rank, then the others by what they showed, with all their settings."""
    rows = [
        {
            "number": outcome["number"],
            "state": outcome["state"],
            "folds_mae_months": " ".join(f"{mae:.2f}" for mae in outcome.get("fold_mae_months") or []),
            "mean_of_folds_months": outcome.get("mae_months"),
            "stopped_at": outcome.get("stopped_at", ""),
            "reason": outcome.get("reason", ""),
            **outcome["config"],
        }
        for outcome in outcomes
    ]
    if not rows:
        return pd.DataFrame(columns=["number", "state"])
    table = pd.DataFrame(rows).merge(costs.drop(columns="state"), on="number").merge(board, on="number", how="left")
    order = ["mae_months", "mean_of_folds_months", "number"]
    table = table.sort_values(order, na_position="last", ignore_index=True)
    front = ["number", "state", *board.columns.drop("number"), "mean_of_folds_months", "folds_mae_months"]
    return table[[*front, *table.columns.drop(front)]]


def _by_importance(settings: list[str], shares: dict[str, float]) -> list[str]:
    return sorted(settings, key=lambda name: (-shares.get(name, 0.0), settings.index(name)))


def _of_best(
    best: FinishedTrial,
    trials: list[FinishedTrial],
    drawings: dict[str, Markup | None],
    tables: dict[str, pd.DataFrame],
) -> dict[str, Any]:
    """Figures, drawings and tables of the best trial's out-of-fold predictions."""
    oof = best.oof
    measured = measure(
        oof["bone_age_months"].to_numpy(float),
        oof["predicted_months"].to_numpy(float),
        oof["is_male"].to_numpy(bool),
        np.stack(oof["distribution"].to_list()),
    )
    measured |= beside_median(
        oof["bone_age_months"].to_numpy(float), oof["predicted_months"].to_numpy(float), _training_medians(oof)
    )
    matrix = figures.confusion_matrix(oof)
    tables["groups"] = pd.DataFrame(measured["groups"])
    tables["figures"] = _figures_table(measured)
    tables["confusion_years"] = matrix.reset_index()
    tables["predictions"] = oof.drop(columns="distribution")
    whose = f"trial {best.number}, out of fold"
    drawings["groups"] = svg(figures.errors_by_group(measured["groups"]), "Error by sex and bone age; see the table")
    drawings["agreement"] = svg(figures.agreement(oof), f"Predicted against reference bone age, {whose}")
    drawings["bland_altman"] = svg(figures.bland_altman(oof), f"Bland-Altman plot, {whose}")
    drawings["confusion"] = svg(figures.confusion(matrix), f"Confusion matrix over years of bone age, {whose}")
    worst = leaderboard.worst_cases(best, trials, NUM_WORST)
    tables["worst_cases"] = pd.DataFrame(worst)
    difference = (oof["predicted_months"] - oof["bone_age_months"]).to_numpy()
    return {"measured": measured, "limits": limits_of_agreement(difference), "worst": worst}


def _training_medians(oof: pd.DataFrame) -> np.ndarray:
    """``(C,)`` for each case the median bone age, in months, of the cases that its fold's model was trained on."""
    median_of = {fold: oof.loc[oof["fold"] != fold, "bone_age_months"].median() for fold in oof["fold"].unique()}
    return oof["fold"].map(median_of).to_numpy(float)


def _figures_table(measured: dict[str, Any]) -> pd.DataFrame:
    """figure, value, low, high; the mean absolute error also as MAD, as Memon & Cuomo and others call it."""
    rows, measured = [], measured | {"mad_months": measured["mae_months"], "mad_ci95": measured["mae_ci95"]}
    for name, value in measured.items():
        if isinstance(value, int | float):
            short = name.removesuffix("_mae_months").removesuffix("_months")  # median_predictor_mae_months too
            low, high = measured.get(f"{short}_ci95") or (None, None)
            rows.append({"figure": name, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _pictures(
    cohort: str | Path | AnyPath, about: dict[str, Any], worst: list[dict[str, Any]], view: str
) -> tuple[dict[str, str], str]:
    """Pictures of one view by case id, or why there are none."""
    if not worst:
        return {}, ""
    try:
        opened = Cohort.load(cohort)
    except (StorageError, OSError, ValueError) as error:
        return {}, f"No pictures: the cohort cannot be opened. {error}"
    if opened.hash != about["cohort_hash"]:
        return {}, f"No pictures: {cohort} is not the cohort of this study. Name where that is with --cohort."
    is_open = ~opened.cases["is_test"]
    pixels_NSS = opened.view(view)
    row_of = dict(zip(opened.cases.loc[is_open, "case_id"], opened.cases.index[is_open], strict=True))
    return {case["case_id"]: page.embed(page.radiograph(pixels_NSS[row_of[case["case_id"]]])) for case in worst}, ""


def _costs(costs: pd.DataFrame) -> dict[str, Any]:
    """Totals in image passes of the complete and the stopped trials.

    Returns:
        over (spent on them), full (what full cross-validation of them takes), factor (full / over, None where nothing
        was spent), saved (full - over), by_stopping (what the stopped ones saved), short (what the short trainings of
        the complete ones took); saved is by_stopping - short.
    """
    over = costs[costs["state"].isin(COMPARED)]
    saved = over.groupby("state")["saved"].sum()
    spent, full = int(over["spent"].sum()), int(over["full"].fillna(over["spent"]).sum())
    return {
        "over": spent,
        "full": full,
        "factor": full / spent if spent else None,
        "saved": full - spent,
        "by_stopping": int(saved.get("stopped", 0)),
        "short": -int(saved.get("complete", 0)),
    }
