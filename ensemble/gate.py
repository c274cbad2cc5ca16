"""The gate: what a bundle must have shown under stress before an alias may move to it.

The rules are the registry's own, in ``policy.json`` beside its bundles; without that file the ones below hold. Each is
a limit on one figure of an examination. A share is judged by its 95 % interval (Wilson), the difference to the bundle
whose place is taken by its paired one, a family of alterations by one test (`ensemble.families`): the gate fails where
the data contradict the rule, and `min_cases` keeps a handful of cases from contradicting nothing. So a small harm
passes. Of 100 cases with 7 wrong, 11 more are found in 3 of 10 gates where they are the same cases at all levels of one
family, in 8 of 10 where each level has others, in 8 to 9 of 10 where every family is harmed; of 300 cases with 21
wrong, 24 more in 7 of 10 or nearly all (tests/test_ensemble_families.py). More cases make the gate sharper.

Shape letters: C cases, L levels.
"""

import difflib
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from ensemble.alterations import suite
from ensemble.compare import holm
from ensemble.families import FAILED, REFUSED, WRONG, rise
from ensemble.printed import tally
from ensemble.registry import Registry, RegistryError
from preprocessing.storage import read_json
from search.metrics import wilson

POLICY = "policy.json"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits of a registry."""

    min_cases: int = 100
    """Fewest cases that were altered in the stress test."""
    max_seen: float = 0.0
    """Share of the examined cases that may look like ones that the bundle was trained or calibrated on; see
    `ensemble.unseen`. A site that counts its children from 1 may allow those that agree by accident."""
    max_wrong_answered: float = 0.01
    """Share of wrong inputs that may be answered, or fail; only a refusal is right."""
    max_false_rejection: float = 0.01
    """Share of radiographs, as they are, that may be refused or fail."""
    max_altered_rejection: float = 0.1
    """The same for each alteration that is not in `may_refuse`."""
    may_refuse: tuple[str, ...] = (
        "resolution: 64 pixels",
        "geometry: cropped 20%",
        "noise: Gaussian 0.1",
        "noise: Poisson 100 photons",
    )
    """Alterations, ``family: level``, after which a refusal is no error, for the picture has lost what is read. After
    any other one a refusal counts like a clinically significant error; a failure does after every one."""
    alpha: float = 0.05
    """A family of alterations fails when its errors rise with a p (Holm, over the families) below this."""
    coverage_90: tuple[float, float] = (0.87, 0.93)
    """Between these the share of cases inside their 90 % interval must lie, in each profile."""
    coverage_90_band: tuple[float, float] = (0.84, 0.96)
    """The same for each sex and band of bone age that has `min_band_cases`."""
    min_band_cases: int = 60
    max_worse_months: float = 0.0
    """By so much its mean absolute error may be above that of the bundle whose place it takes, on the same cases."""
    exempt: tuple[str, ...] = ("metadata: sex swapped", "metadata: sex missing")
    """Alterations whose rise of errors is what they are for: a wrong sex, and one that is not stated, which every
    answer says, with an interval that holds both sexes'. Without a rise there an ensemble would make no use of the
    sex."""

    def __post_init__(self) -> None:
        for name in ("may_refuse", "exempt"):
            _check_alterations(name, getattr(self, name))
        for name in ("max_seen", "max_wrong_answered", "max_false_rejection", "max_altered_rejection", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie within 0..1, got {getattr(self, name)}.")
        for name in ("coverage_90", "coverage_90_band"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ValueError(f"{name} must rise within 0..1, got {low}, {high}.")
        if min(self.min_cases, self.min_band_cases) < 1 or not self.max_worse_months >= 0:
            raise ValueError(f"Numbers of cases must be 1 or more and max_worse_months 0 or more, got {self}.")

    @classmethod
    def of(cls, registry: Registry) -> Self:
        """The policy of a registry.

        Raises:
            RegistryError: It says something that this release does not know.
        """
        path = registry.path / POLICY
        if not path.exists():
            return cls()
        said = read_json(path)
        try:
            if not isinstance(said, dict):
                raise TypeError(f"it must be an object of rules, got a {type(said).__name__}")
            if unknown := sorted(set(said) - {field.name for field in fields(cls)}):
                raise ValueError(f"it has no rule {unknown[0]!r}")
            rules: dict[str, Any] = {k: tuple(rule) if isinstance(rule, list) else rule for k, rule in said.items()}
            return cls(**rules)
        except (TypeError, ValueError) as error:
            raise RegistryError(f"{path} is no policy: {error}. Mend it, or remove it for the usual rules.") from None


def _check_alterations(rule: str, names: Any) -> None:
    """A name that no alteration has would leave out nothing, and nobody would notice."""
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{rule} must be a list of alterations, each a text 'family: level', got {names!r}")
    known = [f"{made.family}: {made.level}" for made in suite()]
    for name in names:
        if name not in known:
            (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ValueError(f"{rule} names {name!r}, which is no alteration; the nearest is {nearest!r}")


def failures(report: dict[str, Any], policy: Policy) -> list[str]:
    """Rules that an examination contradicts, each as a sentence; none means that the gate is passed.

    Args:
        report: From `ensemble.examination.examine`.
        policy: The limits.
    """
    source, altered = report["source"], report["n"] - report["undecoded"]
    found = []
    if altered < policy.min_cases:
        found.append(f"The stress test needs {policy.min_cases} cases or more, it had {altered}.")
    if source["seen"] > policy.max_seen * source["num_cases"]:
        found.append(
            f"{source['seen']} of {source['num_cases']} cases have the id, the sex and the bone age of a case that it "
            "was trained or calibrated on: name a source without them."
        )
    return [
        *found,
        *_of_refusals(report, policy),
        *_of_wrong_inputs(report["alterations"], policy),
        *_of_families(report, policy),
        *_of_coverage(report["standing"], policy),
        *_of_champion(report["standing"], policy),
    ]


def _of_refusals(report: dict[str, Any], policy: Policy) -> list[str]:
    """Radiographs that should be answered: as they are, in both parts of the examination, and altered."""
    standing, clean = report["standing"], report["clean"]
    unanswered = {"as they are": (standing["asked"] - standing["n"], standing["asked"], standing["reasons"])}
    unanswered["of the stress test as they are"] = (report["n"] - clean["answered"], report["n"], clean["reasons"])
    found = [
        f"{count / n:.1%} of {n} radiographs {what} were refused or failed{_listed(reasons)}."
        for what, (count, n, reasons) in unanswered.items()
        if wilson(count, n)[0] > policy.max_false_rejection
    ]
    for row in report["alterations"]:
        share, name = row["rejected"] + row["failed"], f"{row['family']}: {row['level']}"
        if row["is_wrong"] or name in policy.may_refuse:
            continue
        if wilson(share * row["asked"], row["asked"])[0] > policy.max_altered_rejection:
            found.append(f"{name}: {share:.1%} of {row['asked']} were refused or failed{_listed(row['reasons'])}.")
    return found


def _of_wrong_inputs(rows: list[dict[str, Any]], policy: Policy) -> list[str]:
    wrong = [row for row in rows if row["is_wrong"]]
    asked = sum(row["asked"] for row in wrong)
    passed = sum((1 - row["rejected"]) * row["asked"] for row in wrong)
    if not asked or wilson(passed, asked)[0] <= policy.max_wrong_answered:
        return []
    worst = sorted(wrong, key=lambda row: row["rejected"])[:3]
    listed = ", ".join(f"{row['level']} {1 - row['rejected']:.0%}" for row in worst)
    return [f"{passed / asked:.1%} of {asked} wrong inputs were answered or failed, not refused ({listed})."]


def _of_families(report: dict[str, Any], policy: Policy) -> list[str]:
    """Families after which more cases are wrong than before."""
    before_C = np.array([mark in (WRONG, REFUSED, FAILED) for mark in report["clean"]["marks"]], bool)
    rows: dict[str, list[np.ndarray]] = {}
    names: dict[str, list[str]] = {}
    for row in report["alterations"]:
        name = f"{row['family']}: {row['level']}"
        if not row["is_wrong"] and name not in policy.exempt:
            refused = np.nan if name in policy.may_refuse else 1.0
            worth = {WRONG: 1.0, FAILED: 1.0, REFUSED: refused}
            names.setdefault(row["family"], []).append(row["level"])
            rows.setdefault(row["family"], []).append(np.array([worth.get(mark, 0.0) for mark in row["marks"]]))
    tests = {family: rise(before_C, np.stack(after)) for family, after in rows.items()}
    adjusted = holm([test.p for test in tests.values()])
    return [
        f"{family}: clinically significant errors and refusals rose from {test.before:.0f} to {test.after:.1f} of "
        f"{len(before_C)} cases, the mean over {len(rows[family])} levels, most at "
        f"{names[family][test.worst]} (p {p:g})."
        for (family, test), p in zip(tests.items(), adjusted, strict=True)
        if p < policy.alpha
    ]


def _of_coverage(standing: dict[str, Any], policy: Policy) -> list[str]:
    """Profiles whose 90 % intervals hold too few or too many of the cases that have one, or that not all cases have."""
    found: list[str] = []
    for profile, of_profile in standing["profiles"].items():
        coverage, whose = of_profile["coverage"], "" if profile == "full" else f" of the profile {profile}"
        overall = None if coverage is None else _at_90(coverage)
        if overall is None:
            found.append(f"Answers{whose} have no 90 % interval.")
            continue
        if lacking := coverage["n"] - overall["n"]:
            found.append(f"{lacking} of {coverage['n']} answers{whose} have no 90 % interval.")
        judged = [(overall, "cases", *policy.coverage_90)]
        for group in coverage["groups"]:
            level, (first, last) = _at_90(group), group["bone_age_years"]
            if level is not None and level["n"] >= policy.min_band_cases:
                judged.append((level, f"{group['sex']} cases of {first} to {last} years", *policy.coverage_90_band))
        for level, what, least, most in judged:
            low, high = wilson(level["share"] * level["n"], level["n"])
            if high < least or low > most:
                found.append(
                    f"The 90 % interval{whose} held {level['share']:.1%} of {level['n']} {what} "
                    f"(95 % interval {low:.1%} to {high:.1%}), not {least:.0%} to {most:.0%}."
                )
    return found


def _at_90(covered: dict[str, Any]) -> dict[str, Any] | None:
    """Of all cases or a group, what was found for the 90 % interval; None where no case has one."""
    found = next((level for level in covered["levels"] if level["level"] == 90), None)
    return found and {"n": covered["n"]} | found  # reports from before do not say n: there all cases had one


def _of_champion(standing: dict[str, Any], policy: Policy) -> list[str]:
    """Where it does worse than the bundle whose place it would take, by more than the data leave open."""
    found: list[str] = []
    paired = standing["comparison"]
    if not paired:
        return found
    beside, ends = f"than {standing['champion']} on {paired['n']} cases", paired["mae_difference_ci95"]
    if ends is not None and ends[0] > policy.max_worse_months:  # a handful of cases has no interval
        low, high = ends
        found.append(
            f"Its mean absolute error is {paired['mae_difference_months']:.2f} months higher {beside} "
            f"(95 % interval {low:.2f} to {high:.2f})."
        )
    test = paired["significant_errors"]
    if test["gained"] > test["lost"] and test["p"] < policy.alpha:
        found.append(
            f"It makes more clinically significant errors {beside}: {test['after']} for {test['before']} "
            f"(p {test['p']:g})."
        )
    return found


def _listed(reasons: dict[str, int]) -> str:
    found = tally(reasons)
    return f" ({found})" if found else ""
