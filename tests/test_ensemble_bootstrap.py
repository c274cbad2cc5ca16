"""BBC-CV: higher than the score on the selected rows, close to the truth, for the choice of the method too."""

import numpy as np
import pytest

from ensemble.bootstrap import AUTO, MEAN, combined, repeat
from ensemble.select import COMBINING, Rules, select
from search.greedy import shares


def pool(seed: int, num_cases: int = 60, num_candidates: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 4, num_cases) + rng.normal(0, 7, (num_candidates, num_cases))


@pytest.mark.parametrize("method", COMBINING)
def test_it_is_higher_than_the_score_on_the_selected_rows(method):
    error_TC = pool(7)
    optimistic = np.abs(combined(error_TC, select(error_TC, shares(None, 60), method, Rules()))).mean()
    corrected = repeat(error_TC, Rules(), methods=(method,)).of(method)
    assert corrected.months > optimistic
    assert corrected.ci95[0] < corrected.months < corrected.ci95[1]


def test_it_covers_the_error_on_new_cases():
    rng = np.random.default_rng(0)
    error_TC = rng.normal(0, 8, (8, 4000)) * rng.uniform(0.8, 1.6, (8, 1))
    known, new = error_TC[:, :150], error_TC[:, 150:]
    weights_T = select(known, shares(None, 150), "greedy", Rules())
    low, high = repeat(known, Rules(), methods=("greedy",)).of("greedy").ci95
    assert low < np.abs(combined(new, weights_T)).mean() < high


def test_choosing_the_method_is_part_of_what_is_repeated():
    repeated = repeat(pool(1), Rules(), num_rounds=50)
    scores = {name: repeated.of(name).months for name in COMBINING}
    assert repeated.best() == min(scores, key=scores.get)
    assert min(scores.values()) <= repeated.of(AUTO).months <= max(scores.values())


def test_the_gain_over_the_best_single_is_paired():
    gain = repeat(pool(2, num_cases=200), Rules(), num_rounds=50).gain("equal", "single")
    assert gain.ci95[0] < gain.months < gain.ci95[1] < 0


def test_the_interval_of_the_gain_holds_what_is_gained_on_new_cases_as_often_as_it_says():
    """Of candidates that are alike, which are selected is luck; 60 draws, and 95 % less what chance takes."""
    rng, held = np.random.default_rng(0), []
    for _ in range(60):
        errors = rng.normal(0, 8, 6300) + rng.normal(0, 6, (5, 6300))
        known, new = errors[:, :300], errors[:, 300:]
        chosen, best = (select(known, shares(None, 300), name, Rules()) for name in ("greedy", "single"))
        gained = (np.abs(chosen @ new) - np.abs(best @ new)).mean()
        low, high = repeat(known, Rules(), methods=("greedy", "single"), num_rounds=40).gain("greedy", "single").ci95
        held.append(low <= gained <= high)
    assert np.mean(held) > 0.88


def test_it_is_the_same_twice():
    first, second = (repeat(pool(1), Rules(), num_rounds=20).of(AUTO) for _ in range(2))
    assert first == second


def test_one_case_has_no_corrected_score():
    assert repeat(pool(1, num_cases=1), Rules()) is None


def test_progress_is_told_round_by_round():
    told: list[tuple[int, int]] = []
    repeat(pool(1), Rules(), num_rounds=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_choice_of_the_method_stays_that_of_the_errors_it_was_made_on():
    """Scored on errors that are shuffled among the candidates, another method would look best in many rounds."""
    rng = np.random.default_rng(0)
    repeated = repeat(pool(1), Rules(), num_rounds=30)
    elsewhere = repeated.scored_on(pool(1)[rng.permutation(9)] * rng.uniform(0.5, 2, (9, 1)), MEAN)
    picked = [elsewhere.error_BC[name][index] for index, name in enumerate(repeated.chosen_B)]
    assert elsewhere.of(AUTO).months == pytest.approx(np.mean([np.nanmean(errors) for errors in picked]))
