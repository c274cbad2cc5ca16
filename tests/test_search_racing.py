"""Stopping rules: what they promise for any trials, and what they did on recorded curves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.halving import Halving, Screen
from search.progress import Progress
from search.racing import Forgiving, Matched, Paired, Race, Rule, make_rules, race_for, seed_variance

SHARES = (0.8, 0.9, 0.95, 1.0)
POOL = 3
errors = st.floats(1.0, 100.0)
curves = st.lists(errors, min_size=1, max_size=1 + len(SHARES))


def trial(number: int, curve: list[float], folds: list[float] | None = None, *, is_complete: bool = False) -> Progress:
    """The first number is the short training's, the others were measured late in fold 0."""
    points = tuple(zip(SHARES, curve[1:], strict=False))
    return Progress(number, points, tuple(folds or ()), is_complete, (), curve[0] if curve else None)


def complete(number: int, *folds: float) -> Progress:
    return Progress(number, (), folds, True)


def replay(rules: list[Rule], full: list[Progress]) -> tuple[set[int], int]:
    """Run recorded trials one after another; returns those that ended complete, and how many folds were run."""
    race, done, folds_run = Race(rules), set(), 0
    for whole in full:
        stopped = False
        race.record(Progress(whole.number, screen_months=whole.screen_months))
        stopped = race.verdict(whole.number, after="screen") is not None
        for count in range(1, len(whole.curve) + 1):
            if stopped:
                break
            folds = whole.fold_mae_months[:1] if count == len(whole.curve) else ()
            race.record(replace(whole, curve=whole.curve[:count], fold_mae_months=folds))
            stopped = race.verdict(whole.number, after="fold" if folds else "measurement") is not None
        folds_run += not stopped
        for count in range(2, len(whole.fold_mae_months) + 1):
            if stopped:
                break
            folds_run += 1
            race.record(replace(whole, fold_mae_months=whole.fold_mae_months[:count]))
            stopped = count < len(whole.fold_mae_months) and bool(race.verdict(whole.number, after="fold"))
        if not stopped:
            race.record(replace(whole, is_complete=True))
            done.add(whole.number)
    return done, folds_run


def recorded() -> list[Progress]:
    """64 trainings of the space `quick` on five folds of 956 real radiographs, as `benchmarks.racing` recorded them."""
    rows = json.loads((Path(__file__).parent / "recorded_curves.json").read_text())
    return [
        Progress(
            number,
            tuple(zip((0.2, 0.4, 0.6, 0.8, 1.0), row["fold_0"], strict=True)),
            tuple(row["folds"]),
            screen_months=row["screen"],
        )
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("race", ["matched", "forgiving"])
def test_the_race_finds_the_best_recorded_trials_with_few_folds(race: str, order: int) -> None:
    full = recorded()[::order]
    done, folds_run = replay(make_rules(race, True, 5), full)
    best = sorted(full, key=lambda one: one.mae_months)[:5]
    assert sum(one.number in done for one in best) >= 4
    assert 2.8 * folds_run <= 5 * len(full)


@pytest.mark.parametrize(
    ("race", "num_folds", "meant"),
    [("auto", 9, "matched"), ("auto", 10, "paired"), ("forgiving", 10, "forgiving"), ("none", 5, "none")],
)
def test_from_ten_folds_on_cases_are_compared_unless_a_rule_is_named(race: str, num_folds: int, meant: str) -> None:
    assert race_for(race, num_folds) == meant


def test_the_race_waits_for_as_many_complete_trials_as_the_pool_wants() -> None:
    assert Forgiving(2).verdict(trial(9, [], [99.0]), [complete(0, 10.0, 11.0, 12.0)]) is None


def test_the_race_stops_what_is_no_better_than_the_worst_fold_of_the_second_best() -> None:
    others = [complete(0, 10.0, 11.0, 12.0), complete(1, 12.0, 13.0, 14.0), complete(2, 20.0, 20.0, 20.0)]
    assert Forgiving(2).verdict(trial(9, [], [13.9]), others) is None
    assert "worst fold of trial 1" in (Forgiving(2).verdict(trial(9, [], [14.0]), others) or "")
    assert Forgiving(2).verdict(trial(9, [], [15.0, 12.0]), others) is None  # the mean counts, not the last fold


def test_folds_are_compared_with_the_same_folds_of_the_others() -> None:
    hard_first = [complete(0, 14.0, 10.0, 10.0), complete(1, 15.0, 11.0, 11.0), complete(2, 30.0, 30.0, 30.0)]
    assert Matched(2).verdict(trial(9, [], [14.9]), hard_first) is None
    assert "above 15.00 there" in (Matched(2).verdict(trial(9, [], [15.0]), hard_first) or "")
    assert Matched(2).verdict(trial(9, [], [15.5, 10.4]), hard_first) is None  # the mean counts, not the last fold
    assert Matched(2).verdict(trial(9, [], [15.5, 11.0]), hard_first)


def test_the_matched_rule_allows_for_what_the_folds_vary_beside_their_own_and_the_trials_levels() -> None:
    noisy = [complete(0, 11.0, 9.0, 10.0), complete(1, 9.0, 11.0, 10.0)]  # residual +-1, +-1, 0: s = sqrt(4 / 2)
    assert Matched(2).verdict(trial(9, [], [11.0 + 1.41]), noisy) is None
    assert Matched(2).verdict(trial(9, [], [11.0 + 1.42]), noisy)
    assert Matched(2).verdict(trial(9, [], [10.99, 10.99]), noisy) is None  # over two folds s / sqrt(2) = 1
    assert Matched(2).verdict(trial(9, [], [11.01, 11.01]), noisy)
    assert Matched(2).verdict(trial(9, [], [99.0]), noisy[:1]) is None


def test_the_screen_judges_the_short_training_and_halving_the_long_one() -> None:
    others = [trial(number, [10.0, 10.0]) for number in range(12)]
    assert "short training: 12 of 12" in (Screen(POOL).verdict(trial(99, [20.0]), others) or "")
    assert Halving(POOL).verdict(trial(99, [20.0]), others) is None
    assert "80% of fold 1: 12 of 12" in (Halving(POOL).verdict(trial(99, [10.0, 20.0]), others) or "")
    assert Screen(POOL).verdict(trial(99, [10.0, 20.0]), others) is None


def test_a_measurement_while_the_rate_is_high_is_not_judged() -> None:
    early = Progress(9, ((0.6, 90.0),))
    assert Halving(POOL).verdict(early, [Progress(i, ((0.6, 10.0),)) for i in range(12)]) is None


def test_trials_without_a_short_training_are_no_measure_of_one() -> None:
    assert Screen(POOL).verdict(trial(9, [20.0]), [Progress(i, ((0.8, 1.0),)) for i in range(8)]) is None


def test_trials_measured_at_other_shares_are_compared_by_interpolation() -> None:
    other = Progress(0, ((0.1, 30.0), (0.3, 10.0)))
    assert other.measured_at(0.2) == pytest.approx(20.0)
    assert other.measured_at(0.31) == pytest.approx(10.0)
    assert other.measured_at(0.4) is None


def test_what_is_as_good_as_a_pool_member_was_then_goes_on() -> None:
    slow_starters = [trial(i, [40.0, 5.0], [5.0, 5.0], is_complete=True) for i in range(POOL)]
    fast = [trial(10 + i, [20.0]) for i in range(8)]
    assert Screen(POOL).verdict(trial(30, [39.0]), [*slow_starters, *fast]) is None
    assert Screen(POOL).verdict(trial(30, [41.0]), [*slow_starters, *fast])


@settings(deadline=None)
@given(st.lists(curves, max_size=12), curves, st.randoms())
def test_the_order_of_the_others_changes_no_verdict(others: list[list[float]], curve: list[float], random) -> None:
    known = [trial(i, item, item[:1], is_complete=i % 2 == 0) for i, item in enumerate(others)]
    shuffled = random.sample(known, len(known))
    judged = trial(99, curve, curve[:1])
    for rule in make_rules("matched", True, POOL):
        assert rule.verdict(judged, known) == rule.verdict(judged, shuffled)


@settings(deadline=None)
@given(st.lists(curves, max_size=12), curves, st.floats(0.0, 30.0))
def test_what_is_worse_is_stopped_wherever_the_better_is(
    others: list[list[float]], curve: list[float], more: float
) -> None:
    known = [trial(i, item, item[:1], is_complete=i % 2 == 0) for i, item in enumerate(others)]
    worse = [value + more for value in curve]
    for rule in make_rules("matched", True, POOL):
        if rule.verdict(trial(99, curve, curve[:1]), known):
            assert rule.verdict(trial(99, worse, worse[:1]), known)


@settings(deadline=None)
@given(st.lists(curves, max_size=12), curves)
def test_nothing_is_stopped_early_before_the_pool_was_seen_there(others: list[list[float]], curve: list[float]) -> None:
    known = [trial(i, item) for i, item in enumerate(others)]
    reached = {"screen": 1, "halving": len(curve)}
    for rule in (Screen(POOL), Halving(POOL)):
        if rule.verdict(trial(99, curve), known):
            assert sum(len(item) >= reached[rule.stage] for item in others) >= POOL


@settings(deadline=None)
@given(st.lists(st.floats(5.0, 50.0), min_size=POOL, max_size=16), st.integers(0, 2**31), st.floats(0.0, 4.0))
def test_no_trial_is_lost_that_ends_better_than_the_pool_by_more_than_the_noise(
    finals: list[float], seed: int, noise: float
) -> None:
    """Every measurement and fold strays by at most `noise`: no place of the pool is then worse by over 4 times that."""
    rng = np.random.default_rng(seed)
    offsets = np.array([30.0, 10.0, 7.0, 4.0, 0.0])
    full = []
    for number, final in enumerate(finals):
        curve = list(final + offsets + rng.uniform(-noise, noise, 1 + len(SHARES)))
        folds = [curve[-1], *(final + rng.uniform(-noise, noise, 2))]
        full.append(trial(number, curve, folds))
    done, _ = replay(make_rules("matched", True, POOL), full)
    assert len(done) >= POOL
    wanted = sorted(t.mae_months for t in full)[:POOL]
    got = sorted(t.mae_months for t in full if t.number in done)[:POOL]
    assert np.max(np.subtract(got, wanted)) <= 4 * noise + 1e-9


def paired(number: int, level: float, noise: float, rng: np.random.Generator, folds: int = 10) -> Progress:
    """A complete trial of 50 cases a fold; `noise` is what its training seeds add to each fold's error."""
    cases = tuple(level + rng.normal(0, noise) + rng.normal(0, 4.0, 50) for _ in range(folds))
    return Progress(number, (), tuple(float(c.mean()) for c in cases), True, cases)


def test_seed_noise_is_estimated_from_the_complete_trials() -> None:
    rng = np.random.default_rng(0)
    quiet = [paired(i, 10.0, 0.0, rng, 40) for i in range(8)]
    noisy = [paired(i, 10.0, 1.5, rng, 40) for i in range(8)]
    assert seed_variance(quiet) == pytest.approx(0.0, abs=0.15)
    assert seed_variance(noisy) == pytest.approx(1.5**2, rel=0.25)


def test_the_paired_rule_stops_a_clear_difference_and_not_what_seeds_explain() -> None:
    rng = np.random.default_rng(1)
    others = [paired(i, 10.0, 1.0, rng) for i in range(4)]

    def judged(level: float) -> Progress:
        errors = tuple(np.full(50, level) + rng.normal(0, 4.0, 50) for _ in range(3))
        return Progress(9, (), tuple(float(e.mean()) for e in errors), False, errors)

    assert Paired(POOL).verdict(judged(16.0), others)
    assert Paired(POOL).verdict(judged(10.5), others) is None
    assert Paired(POOL).verdict(judged(16.0), others[:2]) is None


@pytest.mark.parametrize(("race", "pool"), [("fast", 2), ("none", 0)])
def test_unknown_rules_are_a_sentence(race: str, pool: int) -> None:
    with pytest.raises(ValueError, match=r"--race|pool_size"):
        make_rules(race, True, pool)


def test_a_rule_of_a_user_s_own_is_asked_after_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text(
        "from search.racing import Forgiving\ndef strict(pool_size): return Forgiving(pool_size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_rules("my_rules:strict", True, 3) == [Screen(3), Halving(3), Forgiving(3)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:rule", "cannot be imported"),
        ("builtins:str", "it has no stage"),
        ("tests.spaces_of_tests:at_no_stage", "must be one of screen, halving, race, got 'fold'"),
        ("swift", "module:function"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_rules(name, True, 3)
