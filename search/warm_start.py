"""What earlier studies know: their points, evaluated where cohort and settings are the same, else tried first.

study/warm_start.json   the points, gathered once when the study is created; written before study.json
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial

from preprocessing.storage import AnyPath, as_path, read_json
from search.limits import Limits
from search.space import TrialConfig
from search.spaces import usual_view
from search.trial import all_outcomes, read_study, trial_folder

FILE = "warm_start.json"
EARLIER = "source"
"""Attribute, in Optuna's record, of a trial that an earlier study made: which study and trial that is."""


class WarmStartError(ValueError):
    """Earlier studies have nothing that the new one can use."""


@dataclass(frozen=True)
class WarmStart:
    """Points of earlier studies, in the terms of the new space."""

    evaluated: list[dict[str, Any]] = field(default_factory=list)
    """``params``, ``mae_months`` and ``source`` of complete trials on the same cohort with the same settings; ``cost``
    where parameters are limited."""
    enqueued: list[dict[str, Any]] = field(default_factory=list)
    """Parameters of points to try first, best first."""
    refused: list[str] = field(default_factory=list)
    """Why a point is neither, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        refused = f", {len(self.refused)} of no use here, the first: {self.refused[0]}" if self.refused else ""
        return f"{len(self.evaluated)} trials of earlier studies known, {len(self.enqueued)} tried first{refused}"


def read_warm_start(study: AnyPath) -> WarmStart:
    """What `gather` found when the study was created; nothing where it was not asked."""
    return WarmStart(**read_json(study / FILE)) if (study / FILE).exists() else WarmStart()


def gather(
    sources: Sequence[str],
    settings_of: Callable[[Any], dict[str, Any]],
    views: Sequence[str],
    cohort_hash: str,
    best: int,
    *,
    limits: Limits | None = None,
) -> WarmStart:
    """Read earlier studies from their folders.

    A complete trial becomes an evaluated point when the cohort is the same and the new space, given its parameters,
    makes the same configuration but for the seed. Otherwise the `best` of each study are enqueued, whose parameters
    the new space can draw; in place of a view that the cohort lacks they take the usual one.

    Args:
        sources: Folders of studies.
        settings_of: The new space, with the view: takes a trial, returns the settings of a `TrialConfig`.
        views: Of the new study's cohort.
        cohort_hash: Of the new study.
        best: How many configurations of a study are enqueued at most.
        limits: Of the new study. Where there are any, an evaluated point must tell its cost too, or Optuna takes it
            for one that passes none and draws ever more like it. Parameters are the same everywhere, and known where
            an earlier study with limits counted them; latency and memory are of the machine that measured them, and
            on which the new trials will run is not known yet: with such a limit every point is tried again.

    Raises:
        StorageError: A folder holds no study.
        WarmStartError: No trial of any can be used.
    """
    found, limits = WarmStart(), limits or Limits()
    for source in sources:
        about, candidates = read_study(source), []
        complete = [outcome for outcome in all_outcomes(source) if outcome["state"] == "complete"]
        for outcome in sorted(complete, key=lambda outcome: (outcome["mae_months"], outcome["number"])):
            name, folder = f"{source} trial {outcome['number']}", trial_folder(as_path(source), outcome["number"])
            written = read_json(folder / "config.json")
            view = written["config"]["view"]
            params = {**written.get("params", {}), "view": view if view in views else usual_view(views)}
            try:
                config, distributions = _draw(settings_of, params)
            except ValueError as error:
                why = str(error).partition(" Please set it at the construction")[0]  # Optuna's advice to programmers
                found.refused.append(f"{name}: {why}")
                continue
            params = {key: params[key] for key in distributions}
            any_seed = {"seed": 0, "deterministic": False}  # what differs between studies, not what was searched
            before = TrialConfig.from_dict(written["config"]).to_dict()
            same_settings = config | any_seed == before | any_seed
            has_cost = not limits.any or (not limits.any_of_machine and (folder / "cost.json").exists())
            if about["cohort_hash"] == cohort_hash and same_settings and has_cost:
                point = {"params": params, "mae_months": outcome["mae_months"], "source": name}
                found.evaluated.append(point | ({"cost": read_json(folder / "cost.json")} if limits.any else {}))
            else:
                candidates.append(params)
        found.enqueued.extend(candidates[:best])
    if sources and not found.evaluated and not found.enqueued:
        why = found.refused[0] if found.refused else "none of their trials is complete."
        raise WarmStartError(f"--warm-start finds nothing to begin with: {why} Name another study, or leave it out.")
    return found


def distributions_of(
    settings_of: Callable[[Any], dict[str, Any]], params: dict[str, Any]
) -> dict[str, BaseDistribution]:
    """The distributions that the space draws these parameters from."""
    return _draw(settings_of, params)[1]


def _draw(
    settings_of: Callable[[Any], dict[str, Any]], params: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Settings that the space makes of given parameters.

    Raises:
        ValueError: It draws another parameter, or cannot draw one of the values.
    """
    trial = FixedTrial(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range: they are refused below
        config = TrialConfig(**settings_of(trial)).to_dict()
    for name, distribution in trial.distributions.items():
        if not distribution._contains(distribution.to_internal_repr(params[name])):
            raise ValueError(f"{name} = {params[name]!r} lies outside the space's {distribution}.")
    return config, dict(trial.distributions)
