"""The gate: what a bundle must have shown under stress before an alias may move to it.

The rules are the registry's own, in ``policy.json`` beside its bundles; without that file the ones below hold. Each is
a limit on one figure of a stress report. A share is judged by its 95 % interval (Wilson): the gate fails where the data
contradict the rule, and `min_cases` keeps a handful of cases from contradicting nothing.
"""

from dataclasses import asdict, dataclass, fields
from math import sqrt
from typing import Any, Self

from ensemble.registry import Registry, RegistryError
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
    exempt: tuple[str, ...] = ("metadata: sex swapped",)
    """Alterations, ``family: level``, whose rise of errors is what they are for."""

    def __post_init__(self) -> None:
        low, high = self.coverage_90
        for name in ("max_wrong_answered", "max_false_rejection", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie within 0..1, got {getattr(self, name)}.")
        if not 0 <= low < high <= 1 or self.min_cases < 1:
            raise ValueError(f"coverage_90 must rise within 0..1 and min_cases be 1 or more, got {self}.")

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
        report: From `ensemble.stress.stress`.
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
        }
    )
    return found


def promote(registry: Registry, name: str, alias: str, *, regardless: str = "") -> tuple[str, str | None]:
    """Move an alias to a bundle that has passed the gate.

    Args:
        registry: Where both are.
        name: Version or alias of the bundle.
        alias: What moves.
        regardless: Why it moves although the gate was not passed; it is recorded with the move. Empty: it does not.

    Returns:
        The version that the alias points to now, and the one before.

    Raises:
        RegistryError: The bundle was never put under stress, or failed, and no reason was given; or there is none.
        AliasMoved: Somebody else moved it in the meantime.
    """
    version, before = registry.version_of(name), registry.aliases().get(alias)
    verdict = next((c for c in reversed(registry.history()) if c["event"] == "gate" and c["version"] == version), None)
    if not (verdict and verdict["passed"]) and not regardless:
        said = (
            "it failed: " + " ".join(verdict["failures"])
            if verdict
            else f"it has not been put under stress: run python -m ensemble stress {registry.path}@{version} SOURCE"
        )
        raise RegistryError(
            f"{version} may not become {alias}, for it has not passed the gate: {said.rstrip('.')}. "
            "--regardless REASON moves it all the same, and is recorded."
        )
    note: dict[str, Any] = {"gate": "passed" if verdict and verdict["passed"] else "not passed"}
    registry.set_alias(alias, version, expected=before, note=note | ({"regardless": regardless} if regardless else {}))
    return version, before
