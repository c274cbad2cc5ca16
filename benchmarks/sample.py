"""A registry in half a minute: few drawn hands, two barely trained trials, the real stages without Ray.

Its readings are worthless and its files are genuine: what serves, checks or measures a bundle can run on it.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.service import running_service
from ensemble.__main__ import main as ensemble
from ensemble.registry import CHAMPION, Registry
from preprocessing.cohort import Cohort
from preprocessing.phantom import write_phantoms
from preprocessing.prepare import prepare
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.sources import read_rsna
from preprocessing.storage import read_json, write_json
from search.space import TrialConfig
from search.trial import run_trial, trial_folder


def publish_sample(
    folder: Path, *, backbone: str = "slim_resnet10", recipe: Recipe | None = None, num_trials: int = 2
) -> Path:
    """Draw, prepare, train and publish.

    Args:
        folder: New folder; gets ``hands``, ``cohort``, ``study`` and ``registry``.
        backbone: timm name of every trial's network.
        recipe: Of the preparation; 96 pixels, and all else as shipped, where it is not given.
        num_trials: Trials, of two folds each; the selection may drop some.

    Returns:
        The registry.
    """
    hands, cohort, study, registry = (folder / name for name in ("hands", "cohort", "study", "registry"))
    write_phantoms(hands, num_cases=24, seed=0)
    prepare(
        read_rsna(hands),
        cohort,
        recipe or Recipe(size=96),
        num_folds=2,
        test_fraction=0.2,
        seed=0,
        progress=lambda done: None,
    )
    _search(cohort, study, backbone, num_trials)
    _build(study, registry)
    return registry


def publish_challenger(folder: Path, *, backbone: str = "slim_resnet10") -> str:
    """Train once more, and longer, on the hands of `publish_sample` and publish that beside it; the champion stays.

    Args:
        folder: The one that `publish_sample` filled.
        backbone: timm name of the network.

    Returns:
        The version.
    """
    registry = Registry(folder / "registry")
    champion, before = registry.version_of(CHAMPION), {row["version"] for row in registry.versions()}
    study = folder / f"study_{len(before)}"
    # forty times as long, so that the two do not both say the mean
    _search(folder / "cohort", study, backbone, 2, first_seed=10 * len(before), epochs=40)
    _build(study, folder / "registry")
    registry.set_alias(CHAMPION, champion)
    (version,) = {row["version"] for row in registry.versions()} - before
    return str(version)


@contextlib.contextmanager
def service_at(url: str | None, *, plain: bool = False) -> Iterator[str]:
    """A URL as it is given; without one, that of a sample with the standard recipe, served until the block ends."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        registry = publish_sample(Path(folder), recipe=Recipe.standard(size=96), num_trials=1)
        with running_service(registry, *(["--plain"] if plain else [])) as service:
            yield service.url


def _build(study: Path, registry: Path) -> None:
    if status := ensemble(["build", str(study), str(registry)]):
        raise RuntimeError(f"The sample bundle could not be built: exit status {status}.")


def _search(
    cohort_path: Path, study: Path, backbone: str, num_trials: int, *, first_seed: int = 0, epochs: int = 1
) -> None:
    cohort = Cohort.load(cohort_path)
    about = read_json(cohort_path / "cohort.json")
    record = {
        "format": "carpal-study-1",
        "name": "sample",
        "cohort": str(cohort_path),
        "cohort_hash": cohort.hash,
        "recipe": about["recipe"],
        "recipe_hash": cohort.recipe.hash,
        "num_folds": cohort.num_folds,
        "space": "sample",
        "num_trials": num_trials,
        "pool_size": num_trials,
        "seed": 0,
    }
    write_json(study / "study.json", record)
    if cohort.recipe.segmenter:
        (study / SEGMENTER).write_bytes((cohort_path / SEGMENTER).read_bytes())
    for number in range(num_trials):
        config = TrialConfig(
            backbone=backbone,
            view=cohort.recipe.views[0],
            epochs=epochs,
            max_images_seen=32 * epochs,
            batch_size=8,
            seed=first_seed + number,
        )
        target = trial_folder(study, number)
        write_json(target / "config.json", {"number": number, "config": config.to_dict()})
        run_trial(target, config, cohort)
        maes = [read_json(target / f"fold_{fold}.json")["mae_months"] for fold in range(cohort.num_folds)]
        outcome = {
            "state": "complete",
            "mae_months": float(np.mean(maes)),
            "fold_mae_months": maes,
            "reason": "",
        }
        write_json(target / "outcome.json", outcome)
