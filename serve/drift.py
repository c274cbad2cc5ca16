"""Whether what comes in, and what goes out, still looks like the evidence of the bundle that answers.

A gateway counts in the bins that the bundle names; Prometheus adds the gateways up over any time and holds the shares
against those of the evidence by a population stability index (deploy/prometheus/drift.yaml). Between n and m cases of
one population, the index over (1/n + 1/m) is distributed as chi squared with one degree of freedom less than there are
bins (Yurdakul, "Statistical properties of population stability index", Western Michigan University 2018), which tells
noise from drift; above 0.2 it is commonly called large (Siddiqi, "Credit risk scorecards", 2006).
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from scipy.stats import chi2

NOISE = 0.999
"""Quantile of the index without drift: with ten monitors looked at once a day, three false alarms a year."""


class Drift:
    """Cases of each version by monitor and bin.

    Args:
        registry: Where Prometheus finds them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("version", "monitor")
        self._monitors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self._cases = Counter("carpal_drift_cases", "Cases by bin of a monitor.", (*labels, "bin"), registry=registry)
        self._shares = Gauge(
            "carpal_drift_expected_share", "Share of the bundle's evidence.", (*labels, "bin"), registry=registry
        )
        self._evidence = Gauge("carpal_drift_evidence_cases", "Cases of the evidence.", labels, registry=registry)
        self._quantile = Gauge(
            "carpal_drift_noise_quantile", "Of chi squared: the index over (1/n + 1/m).", labels, registry=registry
        )

    @property
    def versions(self) -> frozenset[str]:
        """Whose evidence is known, be it that there is none."""
        return frozenset(self._monitors)

    def expect(self, version: str, monitors: Mapping[str, Mapping[str, Any]]) -> None:
        """Count for a version from now on.

        Args:
            version: Of a bundle.
            monitors: From its ``evidence/monitors.json``; empty where it has none.
        """
        for name, monitor in monitors.items():
            for bin_, share in zip(_bins(monitor), monitor["shares"], strict=True):
                self._cases.labels(version, name, bin_)  # from 0 on: a bin that nobody meets counts too
                self._shares.labels(version, name, bin_).set(share)
            self._evidence.labels(version, name).set(monitor["num_cases"])
            self._quantile.labels(version, name).set(float(chi2.ppf(NOISE, len(monitor["shares"]) - 1)))
        self._monitors[version] = monitors

    def see(self, version: str, **values: float | str) -> None:
        """Count one case; what the version's evidence does not know is left out."""
        monitors = self._monitors.get(version, {})
        for name, value in values.items():
            if (monitor := monitors.get(name)) is None:
                continue
            if isinstance(value, str):
                if value in monitor["words"]:
                    self._cases.labels(version, name, value).inc()
            else:
                self._cases.labels(version, name, _bins(monitor)[bisect_right(monitor["edges"], value)]).inc()


def _bins(monitor: Mapping[str, Any]) -> list[str]:
    """Words, or numbers that sort as the bins do."""
    words: list[str] = monitor.get("words") or [f"{number:02d}" for number in range(len(monitor["shares"]))]
    return words
