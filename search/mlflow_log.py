"""MLflow, where MLFLOW_TRACKING_URI names a server or a store: one run a trial, read from the trials' folders.

Install with ``pip install 'carpal[mlflow]'``. What a trial has on disk is the truth; a run repeats it. So a restart
can bring every run up to date without writing anything twice.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from preprocessing.storage import AnyPath, as_path, read_json
from search.board import Event
from search.passes import learning_curves
from search.trial import all_outcomes, read_study, trial_folder

ADDRESS = "MLFLOW_TRACKING_URI"
_TRIAL, _STATE = "carpal.trial", "carpal.state"
_STATUS = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""What MLflow calls a trial that ended so."""
_ENDED = ("", -1)
"""Stands among what was written for the end of a trial."""


def mlflow_log(study: str | AnyPath) -> Callable[[Event], None]:
    """A listener that keeps MLflow up to date, and does nothing where `ADDRESS` is not set.

    Raises:
        ValueError: The address is set, and the package is not installed.
    """
    return MlflowLog(study) if os.environ.get(ADDRESS) else lambda event: None


class MlflowLog:
    """One run a trial: settings as parameters, measurements by fold over image passes, and how it ended."""

    def __init__(self, study: str | AnyPath) -> None:
        """Find or make the study's experiment, and bring in what happened while nobody listened.

        Raises:
            ValueError: The package is not installed.
            ConnectionError: The store does not answer.
        """
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the search waits for its answers
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it tells its makers of its use, from the import on
        try:
            from mlflow import MlflowClient, MlflowException, entities
        except ImportError:
            raise ValueError(
                f"{ADDRESS} is set, and mlflow is not installed. Run: pip install 'carpal[mlflow]', or unset it."
            ) from None
        self._study, self._client = as_path(study), MlflowClient()
        self._metric, self._param = entities.Metric, entities.Param
        self._unreachable = (MlflowException, OSError)
        about = read_study(self._study)
        self._num_folds, name = about["num_folds"], about["name"]
        self._runs: dict[int, str] = {}
        self._written: dict[int, set[tuple[str, int]]] = {}
        try:
            experiment = self._client.get_experiment_by_name(name)
            self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(name)
            for run in self._client.search_runs([self._experiment], max_results=50_000):
                self._runs[int(run.data.tags[_TRIAL])] = run.info.run_id
            for outcome in all_outcomes(self._study):
                self._bring_up_to_date(outcome)
        except self._unreachable as error:
            address = os.environ[ADDRESS]
            raise ConnectionError(
                f"{ADDRESS} is {address}, which does not answer: {error}. Mend or unset it."
            ) from None

    def __call__(self, event: Event) -> None:
        """Write down what a trial has measured, and how it ended if it has.

        A store out of reach does not stop the search: it is said, and the next event brings what is missing.
        """
        folder = trial_folder(self._study, event.number)
        ended = folder / "outcome.json"
        outcome = {"number": event.number, "config": read_json(folder / "config.json")["config"]}
        try:
            self._bring_up_to_date(outcome | (read_json(ended) if ended.exists() else {"state": "running"}))
        except self._unreachable as error:
            print(f"search: MLflow did not take trial {event.number}: {error}", file=sys.stderr)

    def _bring_up_to_date(self, outcome: dict[str, Any]) -> None:
        number = outcome["number"]
        run = self._runs.get(number) or self._begin(number, outcome["config"])
        if number not in self._written:
            self._written[number] = self._read_back(run)
        written = self._written[number]
        metrics, now = [], int(1000 * time.time())
        for row in learning_curves(self._study, [outcome], self._num_folds).to_dict("records"):
            for name in ("mae_months", "train_loss"):
                key = (f"fold_{row['fold'] + 1}/{name}", int(row["images_seen"]))
                if key not in written:
                    metrics.append(self._metric(key[0], float(row[name]), now, key[1]))
        state = outcome["state"]
        is_news = state in _STATUS and _ENDED not in written
        if is_news and outcome.get("mae_months") is not None:
            metrics.append(
                self._metric("mae_months", float(outcome["mae_months"]), now, len(outcome["fold_mae_months"]))
            )
        if metrics:
            self._client.log_batch(run, metrics=metrics)
            written |= {(metric.key, metric.step) for metric in metrics}
        if is_news:
            if outcome.get("reason"):
                self._client.set_tag(run, "carpal.reason", outcome["reason"])
            self._client.set_terminated(run, _STATUS[state])
            self._client.set_tag(run, _STATE, state)  # last: what has it needs nothing more
            written.add(_ENDED)

    def _begin(self, number: int, config: dict[str, Any]) -> str:
        tags = {_TRIAL: str(number), _STATE: "running"}
        run = self._client.create_run(self._experiment, run_name=f"trial_{number:04d}", tags=tags).info.run_id
        self._client.log_batch(run, params=[self._param(name, str(value)) for name, value in config.items()])
        self._runs[number] = run
        return run

    def _read_back(self, run: str) -> set[tuple[str, int]]:
        """What a run holds already, from before a restart."""
        data = self._client.get_run(run).data
        found = {(name, item.step) for name in data.metrics for item in self._client.get_metric_history(run, name)}
        return found | ({_ENDED} if data.tags.get(_STATE) in _STATUS else set())
