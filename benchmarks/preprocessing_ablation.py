"""Which preprocessing helps: ``python -m benchmarks.preprocessing_ablation SOURCE OUT``.

One small model, one budget, the same seeds for every recipe; the measure is the out-of-fold mean absolute error on the
cases that every recipe has a prediction for (folds are drawn by one seed, but differ where a gate refuses another
picture). Differences are paired by case and averaged over seeds, with a 95 % bootstrap interval over cases; it covers
the choice of cases, and the spread between seeds stands beside it. The locked test is not touched.
Cohorts and finished folds stay in OUT, so that a run that was stopped goes on.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from preprocessing.cohort import Cohort
from preprocessing.prepare import prepare
from preprocessing.progress import Progress
from preprocessing.recipe import Recipe, shipped_segmenter
from preprocessing.sources import read_source
from search.model import BIN_MONTHS
from search.space import TrialConfig
from search.train import train_fold

BASE = "full"
CONFIG = TrialConfig(
    backbone="slim_resnet10", learning_rate=3e-3, weight_ldl=0.3, augmentation=0.5, batch_size=16, epochs=25
)


def recipes(size: int) -> dict[str, Recipe]:
    """The recipes compared: each step alone on the whole picture where it can be, and the chain up to all of them."""
    full = Recipe(size=size, segmenter=shipped_segmenter(), views=("full",))
    crop = replace(full, views=("crop",))
    aligned = replace(crop, align=True)
    return {
        "full": full,
        "full, CLAHE": replace(full, clahe_clip=2.0),
        "full, aligned": replace(full, align=True),
        "crop": crop,
        "crop, aligned": aligned,
        "crop, aligned, CLAHE": replace(aligned, clahe_clip=2.0),
        "crop, aligned, mean subtracted": replace(aligned, subtract_mean=True),
        "masked, aligned": replace(aligned, views=("masked",)),
        "masked, aligned, CLAHE": replace(aligned, views=("masked",), clahe_clip=2.0),
    }


def run_fold(task: tuple[str, Path, int, int, int]) -> Path:
    """Train one fold with one seed on one cohort, unless it was done; returns the file of its predictions."""
    name, out, fold, seed, images = task
    file = out / f"{_slug(name)}.fold{fold}.seed{seed}.parquet"
    if not file.exists():
        torch.set_num_threads(1)
        cohort = Cohort.load(out / _slug(name))
        config = replace(CONFIG, view=cohort.recipe.views[0], seed=seed, max_images_seen=images)
        trained = train_fold(config, cohort, fold, device="cuda" if torch.cuda.is_available() else "cpu")
        cases = cohort.cases.iloc[cohort.fold_rows(fold)][["case_id", "bone_age_months"]]
        cases = cases.assign(predicted_months=trained.probabilities_NM @ BIN_MONTHS)
        cases.to_parquet(file.with_suffix(".part"), index=False)
        file.with_suffix(".part").rename(file)
    return file


def compare(errors: dict[str, pd.DataFrame]) -> list[dict[str, object]]:
    """Rows of the table: mean absolute error, and the paired difference from `BASE`.

    Args:
        errors: For each recipe a table of absolute errors in months, one row a case and one column a seed.
    """
    shared = sorted(set.intersection(*(set(table.index) for table in errors.values())))
    base = errors[BASE].loc[shared]
    draws = np.random.default_rng(0).integers(0, len(shared), (2000, len(shared)))
    rows: list[dict[str, object]] = []
    for name, table in errors.items():
        change = (table.loc[shared] - base).mean(axis=1).to_numpy()
        low, high = np.percentile(change[draws].mean(axis=1), (2.5, 97.5))
        by_seed = (table.loc[shared] - base).mean(axis=0)
        rows.append(
            {
                "recipe": name,
                "n": len(shared),
                "mae_months": round(float(table.loc[shared].to_numpy().mean()), 2),
                "difference_months": round(float(change.mean()), 2),
                "ci95": [round(float(low), 2), round(float(high), 2)],
                "by_seed": [round(float(value), 2) for value in by_seed],
            }
        )
    return rows


def main() -> None:
    """Prepare, train, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocessing_ablation", description=__doc__)
    parser.add_argument("source", help="labelled radiographs")
    parser.add_argument("out", type=Path, help="folder that keeps what is finished")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_000, help="seen by each fold's model")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    out = options.out.absolute()
    source = read_source(options.source)
    chosen = recipes(options.size)
    for name, recipe in chosen.items():
        if not (out / _slug(name)).exists():
            prepare(
                source,
                out / _slug(name),
                recipe,
                num_folds=3,
                test_fraction=0.1,
                seed=0,
                progress=Progress(f"radiographs prepared: {name}", len(source.cases)),
            )
    # Seed by seed, so that a run that is cut short has compared all recipes on fewer seeds.
    tasks = [
        (name, out, fold, seed, options.images) for seed in range(options.seeds) for name in chosen for fold in range(3)
    ]
    progress = Progress("folds trained", len(tasks))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(run_fold, tasks), start=1):
            progress(done)
    errors = {name: _errors(out, name, options.seeds) for name in chosen}
    rows = compare(errors)
    for row in rows:
        print(
            f"{row['recipe']:34} {row['mae_months']:6.2f}  {row['difference_months']:+6.2f} "
            f"(95 % {row['ci95']}, n = {row['n']})  by seed {row['by_seed']}"
        )
    print(json.dumps({"name": "preprocessing_ablation", "size": options.size, "images": options.images, "rows": rows}))


def _errors(out: Path, name: str, seeds: int) -> pd.DataFrame:
    columns = {}
    for seed in range(seeds):
        table = pd.concat(pd.read_parquet(file) for file in sorted(out.glob(f"{_slug(name)}.fold?.seed{seed}.parquet")))
        columns[seed] = (table["predicted_months"] - table["bone_age_months"]).abs().set_axis(table["case_id"])
    return pd.DataFrame(columns)


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")


if __name__ == "__main__":
    main()
