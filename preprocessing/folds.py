"""The locked test split and the folds: drawn once, stratified, and never splitting what belongs together."""

import numpy as np
import pandas as pd

AGE_BAND_MONTHS = 24
"""Width of the bone-age bands within which test and folds are balanced."""


def check_split(num_cases: int, num_folds: int, test_fraction: float) -> None:
    """Refuse a split that cannot be drawn, before any work is done for it.

    Raises:
        ValueError: Too few cases for so many folds, or an argument out of range.
    """
    if num_folds < 2:
        raise ValueError(f"Cross-validation needs 2 folds or more, got {num_folds}.")
    if not 0 <= test_fraction <= 0.5:
        raise ValueError(f"The test fraction must lie within 0..0.5, got {test_fraction}.")
    if num_cases * (1 - test_fraction) < 2 * num_folds:
        raise ValueError(
            f"{num_folds} folds need at least {2 * num_folds} different cases outside the test split, "
            f"got {num_cases} in all. Add cases or ask for fewer folds."
        )


def assign(
    cases: pd.DataFrame, groups: np.ndarray, *, num_folds: int, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the locked test split and the folds, both balanced over sex and bone-age band.

    Groups are shuffled within their stratum and then dealt out along all strata in turn, so that every stratum gives
    its share and the totals are exact to one group.

    Args:
        cases: Columns is_male and bone_age_months.
        groups: ``(N,)`` int; cases of one group stay together (they are placed by their first case's stratum).
        num_folds: At least 2.
        test_fraction: Share of the cases that is locked away, within 0..0.5; 0 locks none.
        seed: The same seed gives the same split.

    Returns:
        ``(N,)`` int fold, -1 for test cases; ``(N,)`` bool, whether the case is in the locked test split.

    Raises:
        ValueError: Too few cases for so many folds, or an argument out of range.
    """
    check_split(len(cases), num_folds, test_fraction)
    first = pd.Series(np.arange(len(cases))).groupby(groups).first()
    check_split(len(first), num_folds, test_fraction)
    heads = cases.iloc[first.to_numpy()]
    band = (heads["bone_age_months"] // AGE_BAND_MONTHS).to_numpy()
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(heads)), band, heads["is_male"].to_numpy()))
    # Systematic sampling: one group is locked each time the running share of `test_fraction` passes a whole number.
    share = np.floor(np.arange(1, len(order) + 1) * test_fraction + 0.5)
    is_test = np.diff(share, prepend=0) > 0
    fold = np.full(len(order), -1)
    fold[~is_test] = (np.arange(np.sum(~is_test)) + rng.integers(num_folds)) % num_folds
    fold_of_group, test_of_group = pd.Series(fold, first.index[order]), pd.Series(is_test, first.index[order])
    return fold_of_group.loc[groups].to_numpy(), test_of_group.loc[groups].to_numpy()
