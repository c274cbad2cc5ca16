"""Whether choosing parts is worth anything: ``python -m benchmarks.parts --data FOLDER``.

Part relation and selection (search/models/prs_r.py) with parts that it ranks, with random parts, which is the control
that must be worse, and the network under it alone: each learns the same fold of the same pictures with the same seed,
and the errors on that fold's cases are compared case by case. Whole pictures are the fair ground, where parts have to
be found; in the aligned crop each lies at its place already.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from preprocessing.cohort import MARKER, Cohort
from preprocessing.prepare import prepare
from preprocessing.progress import Progress
from preprocessing.recipe import Recipe
from preprocessing.sources import read_source
from search.metrics import bootstrap_ci95
from search.model import BIN_MONTHS
from search.space import TrialConfig
from search.train import train_fold

NETWORKS = {
    "ranked parts": {"backbone": "prs_r", "parts": "ranked"},
    "random parts": {"backbone": "prs_r", "parts": "random"},
    "none": {"backbone": "slim_resnet18"},
}
FOLD = 0


def error(cohort: Cohort, network: str, view: str, seed: int, images: int) -> np.ndarray:
    """``(N,)`` absolute errors of a network on the fold's cases, in months."""
    config = TrialConfig(
        **NETWORKS[network],  # type: ignore[arg-type]
        view=view,
        head="laplace",
        weight_l1=0.0,
        weight_ldl=0.0,
        weight_z=1.0,
        epochs=50,
        max_images_seen=images,
        seed=seed,
    )
    actual_N = cohort.cases["bone_age_months"].to_numpy(np.float64)[cohort.fold_rows(FOLD)]
    return np.abs(train_fold(config, cohort, FOLD).probabilities_NM @ BIN_MONTHS - actual_N)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--data", required=True, help="labelled radiographs, or a prepared cohort with the view")
    parser.add_argument("--view", default="full", help="full, crop or masked (default full)")
    parser.add_argument("--size", type=int, default=96, help="of a cohort that is prepared here (default 96)")
    parser.add_argument("--images", type=int, default=40_000, help="image passes of a training (default 40000)")
    parser.add_argument("--seeds", type=int, default=1, help="(default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.data)
        if not (place / MARKER).exists():
            place, source = Path(folder) / "cohort", read_source(options.data)
            recipe = Recipe.standard(size=options.size, views=(options.view,))
            shown = Progress("radiographs prepared", len(source.cases))
            prepare(source, place, recipe, num_folds=3, test_fraction=0.1, seed=0, progress=shown)
        cohort = Cohort.load(place)
        errors: dict[str, list[np.ndarray]] = {network: [] for network in NETWORKS}
        for seed in range(options.seeds):
            for network, found in errors.items():
                found.append(error(cohort, network, options.view, seed, options.images))
                print(f"seed {seed}, {network}: {found[-1].mean():.2f} months", flush=True)
    ranked_N = np.mean(errors["ranked parts"], axis=0)
    summary = {"name": "parts", "view": options.view, "images": options.images, "seeds": options.seeds}
    for network in list(NETWORKS)[1:]:
        change_N = ranked_N - np.mean(errors[network], axis=0)
        ci95 = bootstrap_ci95(change_N[None])[0]
        print(f"ranked parts less {network}: {change_N.mean():+.2f} ({ci95[0]:+.2f} to {ci95[1]:+.2f})")
        summary[network] = {"difference_months": float(change_N.mean()), "ci95": ci95}
    print(json.dumps(summary | {"n": len(ranked_N)}))


if __name__ == "__main__":
    main()
