"""The gate: what a bundle must have shown under stress before an alias may move to it.

The rules are the registry's own, in ``policy.json`` beside its bundles; without that file the ones below hold. Each is
a limit on one figure of a stress report. A share is judged by its 95 % interval (Wilson), the difference to the bundle
whose place is taken by its paired one: the gate fails where the data contradict the rule, and `min_cases` keeps a
handful of cases from contradicting nothing.
"""

from dataclasses import asdict, dataclass, fields
from math import sqrt
from typing import Any, Self

from ensemble.registry import CHAMPION, AliasMoved, Registry, RegistryError
from preprocessing.storage import read_json

POLICY = "policy.json"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits of a registry."""

    min_cases: int = 100
    """Fewest cases of the stress test."""
    max_wrong_answered: float = 0.01
    """Share of wrong inputs that may be answered."""
    max_false_rejection: float = 0.01
    """Share of radiographs, as they are, that may be refused."""
    alpha: float = 0.05
    """A family of alterations fails when its clinically significant errors rise with a p (Holm) below this."""
    coverage_90: tuple[float, float] = (0.87, 0.93)
    """Between these the share of cases inside their 90 % interval must lie."""
    coverage_90_band: tuple[float, float] = (0.84, 0.96)
    """The same for each sex and band of bone age that has `min_band_cases`."""
    min_band_cases: int = 60
    max_worse_months: float = 0.0
    """By so much its mean absolute error may be above that of the bundle whose place it takes, on the same cases."""
    exempt: tuple[str, ...] = ("metadata: sex swapped", "metadata: sex missing")
    """Alterations, ``family: level``, whose rise of errors is what they are for: a wrong sex, and one that is not
    stated, which every answer says, with an interval that holds both sexes'. Without a rise there an ensemble would
    make no use of the sex."""

    def __post_init__(self) -> None:
        for name in ("max_wrong_answered", "max_false_rejection", "alpha"):
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
            if unknown := sorted(set(said) - {field.name for field in fields(cls)}):
                raise ValueError(f"it has no rule {unknown[0]!r}")
            rules: dict[str, Any] = {k: tuple(rule) if isinstance(rule, list) else rule for k, rule in said.items()}
            return cls(**rules)
        except (TypeError, ValueError) as error:
            raise RegistryError(f"{path} is no policy: {error}. Mend it, or remove it for the usual rules.") from None


def failures(report: dict[str, Any], policy: Policy) -> list[str]:
    """Rules that a stress report contradicts, each as a sentence; none means that the gate is passed.

    Args:
        report: From `ensemble.stress.stress`, with ``standing`` from `ensemble.standing.standing`.
        policy: The limits.
    """
    found, n, clean = [], report["n"], report["clean"]
    if n < policy.min_cases:
        found.append(f"The stress test needs {policy.min_cases} cases or more, it had {n}.")
    if wilson(clean["rejected"] * n, n)[0] > policy.max_false_rejection:
        found.append(f"{clean['rejected']:.1%} of {n} radiographs as they are were refused.")
    wrong = [row for row in report["alterations"] if row["is_wrong"]]
    if wrong:
        answered = sum((1 - row["rejected"]) * n for row in wrong)
        if wilson(answered, n * len(wrong))[0] > policy.max_wrong_answered:
            worst = sorted(wrong, key=lambda row: row["rejected"])[:3]
            listed = ", ".join(f"{row['level']} {1 - row['rejected']:.0%}" for row in worst)
            found.append(
                f"{answered / (n * len(wrong)):.1%} of {n * len(wrong)} wrong inputs were answered ({listed})."
            )
    for row in report["alterations"]:
        test, name = row.get("significant_errors"), f"{row['family']}: {row['level']}"
        if test and name not in policy.exempt and test["gained"] > test["lost"] and test["p_holm"] < policy.alpha:
            found.append(
                f"{name}: clinically significant errors rose from {test['before']} to {test['after']} of "
                f"{row['answered']} (p {test['p_holm']:g})."
            )
    if clean["coverage_90"] is None:
        found.append("Its answers have no 90 % interval.")
    else:
        low, high = wilson(clean["coverage_90"] * clean["answered"], clean["answered"])
        if high < policy.coverage_90[0] or low > policy.coverage_90[1]:
            found.append(f"The 90 % interval held {clean['coverage_90']:.1%} of {clean['answered']} cases.")
    return found + _of_bands(report["standing"], policy) + _of_champion(report["standing"], policy)


def _of_bands(standing: dict[str, Any], policy: Policy) -> list[str]:
    found: list[str] = []
    for group in standing["coverage"]["groups"] if standing["coverage"] else ():
        share = next(level["share"] for level in group["levels"] if level["level"] == 90)
        low, high = wilson(share * group["n"], group["n"])
        least, most = policy.coverage_90_band
        if group["n"] >= policy.min_band_cases and (high < least or low > most):
            found.append(
                f"The 90 % interval held {share:.1%} of {group['n']} {group['sex']} cases of "
                f"{group['bone_age_years'][0]} to {group['bone_age_years'][1]} years."
            )
    return found


def _of_champion(standing: dict[str, Any], policy: Policy) -> list[str]:
    """Where it does worse than the bundle whose place it would take, by more than the data leave open."""
    found: list[str] = []
    paired = standing["comparison"]
    if not paired:
        return found
    low, high = paired["mae_difference_ci95"]
    beside = f"than {standing['champion']} on {paired['n']} cases"
    if low > policy.max_worse_months:
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


def wilson(hits: float, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 1927)."""
    z, share = 1.96, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def record(registry: Registry, version: str, report: dict[str, Any], sha256: str) -> list[str]:
    """Judge a stress report by the registry's policy and note the verdict; returns `failures`."""
    policy = Policy.of(registry)
    found = failures(report, policy)
    registry.note(
        {
            "event": "gate",
            "version": registry.version_of(version),
            "passed": not found,
            "failures": found,
            "policy": asdict(policy),
            "report_sha256": sha256,
            "num_cases": report["n"],
            "against": report["standing"]["champion"],
        }
    )
    return found


def claim(registry: Registry, version: str, alias: str) -> str:
    """Give an alias that points to nothing yet to a bundle; one that points somewhere moves by `promote` alone.

    Returns:
        The version that the alias points to now.
    """
    try:
        registry.set_alias(alias, version, expected=None, note={"gate": "none: the alias is new"})
    except AliasMoved:
        return registry.aliases()[alias]
    return version


def promote(registry: Registry, name: str, alias: str, *, regardless: str = "") -> tuple[str, str | None]:
    """Move an alias to a bundle that has passed the gate, beside the bundle that the alias points to.

    Args:
        registry: Where both are.
        name: Version or alias of the bundle.
        alias: What moves.
        regardless: Why it moves although the gate was not passed; it is recorded with the move. Empty: it does not.

    Returns:
        The version that the alias points to now, and the one before.

    Raises:
        RegistryError: The bundle was never put under stress, or failed, or was compared with another bundle than the
            one whose place it takes, and no reason was given; or there is none.
        AliasMoved: Somebody else moved it in the meantime.
    """
    version, before = registry.version_of(name), registry.aliases().get(alias)
    missing = _missing(registry, version, alias, before)
    if missing and not regardless:
        raise RegistryError(
            f"{version} may not become {alias}, for it has not passed the gate: {missing.rstrip('.')}. "
            "--regardless REASON moves it all the same, and is recorded."
        )
    note: dict[str, Any] = {"gate": "not passed" if missing else "passed"}
    registry.set_alias(alias, version, expected=before, note=note | ({"regardless": regardless} if regardless else {}))
    return version, before


def _missing(registry: Registry, version: str, alias: str, before: str | None) -> str:
    """What keeps a bundle from taking the place of another; nothing where it has passed."""
    command = f"python -m ensemble stress {registry.path}@{version} SOURCE"
    if alias != CHAMPION and before:
        command += f" --against {alias}"
    verdict = next((c for c in reversed(registry.history()) if c["event"] == "gate" and c["version"] == version), None)
    if verdict is None:
        return f"it has not been put under stress: run {command}"
    if not verdict["passed"]:
        return "it failed: " + " ".join(verdict["failures"])
    if before not in (None, version, verdict.get("against")):
        compared = verdict.get("against") or "no other bundle"
        return f"it was compared with {compared}, and {alias} is {before}: run {command}"
    return ""
