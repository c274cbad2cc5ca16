"""``python -m search check-cluster FILE``: what a cluster file would run a search on, and which traps are in it.

Prices come from a table, ``search/cluster/prices.csv`` or one of the user's own with the same head line: list prices
an hour in us-west-2 and us-central1, Linux, rounded; spot prices are a rough middle and change by the hour. Disks,
traffic, storage and taxes are left out.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from search.cluster.file import ClusterFile, Pool, read_cluster_file
from search.cluster.findings import Expected, Finding
from search.cluster.machines import places
from search.cluster.traps import find_traps, locked_ray_version

PRICES = Path(__file__).with_name("prices.csv")
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
_COLUMNS = {"provider", "instance", "cpus", "gpus", "on_demand_usd", "spot_usd", "as_of"}


@dataclass(frozen=True, kw_only=True)
class Price:
    """One kind of machine."""

    gpus: int
    on_demand_usd: float
    """An hour."""
    spot_usd: float
    """An hour, roughly."""
    as_of: str
    """Year and month."""


Prices = dict[tuple[str, str], Price]
"""By provider and instance type."""


@dataclass(frozen=True, kw_only=True)
class ClusterCheck:
    """What is known of a cluster file."""

    file: ClusterFile
    findings: list[Finding]
    lines: list[str]
    """What a search would run on, how much of it at a time, and what an hour costs."""

    @property
    def num_faults(self) -> int:
        """Findings that are no mere notes."""
        return sum(finding.is_fault for finding in self.findings)


def read_prices(path: Path = PRICES) -> Prices:
    """Read a price table.

    Raises:
        ValueError: A column is missing, or a cell is no number.
    """
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        if missing := _COLUMNS - set(table.fieldnames or ()):
            raise ValueError(f"The price table {path} must have the columns {', '.join(sorted(missing))}.")
        try:
            return {
                (row["provider"], row["instance"]): Price(
                    gpus=int(row["gpus"]),
                    on_demand_usd=float(row["on_demand_usd"]),
                    spot_usd=float(row["spot_usd"]),
                    as_of=row["as_of"],
                )
                for row in table
            }
        except ValueError as error:
            raise ValueError(f"The price table {path} holds a cell that is no number: {error}.") from None


def check_cluster(path: Path, *, prices: Path = PRICES, gpus_per_trial: float | None = None) -> ClusterCheck:
    """Check a file of the launcher or of KubeRay.

    Args:
        path: The file.
        prices: Table in the form of ``search/cluster/prices.csv``.
        gpus_per_trial: As ``search run`` takes it; None: one where any pool has GPUs, else none.

    Raises:
        ClusterFileError: It is no cluster file.
        ValueError: The price table cannot be read.
    """
    file, table = read_cluster_file(path), read_prices(prices)
    gpus_of = {instance: price.gpus for (provider, instance), price in table.items() if provider == file.provider}
    share = gpus_per_trial
    if share is None:
        unsaid = any(pool.gpus is None and not pool.instance for pool in file.pools)
        share = 1.0 if any(pool.gpus or gpus_of.get(pool.instance) for pool in file.pools) or unsaid else 0.0
    expected = Expected(ray_version=locked_ray_version(LOCK), gpus_per_trial=share, gpus_of=gpus_of)
    return ClusterCheck(file=file, findings=find_traps(file, expected), lines=[*_describe(file, table, share, gpus_of)])


def _describe(file: ClusterFile, prices: Prices, share: float, gpus_of: dict[str, int]) -> list[str]:
    lines = [_machine(file, "head", file.head, 1, prices)]
    lines += [_machine(file, pool.name, pool, pool.most, prices) for pool in file.pools]
    held = {pool.name: places(pool, share, gpus_of) for pool in file.pools}
    each = f"{share:g} GPU each" if share else "one CPU or more each"
    unsaid = any(pool.cpus is None or (pool.gpus is None and not gpus_of.get(pool.instance)) for pool in file.pools)
    parts = ", ".join(f"{count} on {name}" for name, count in held.items() if count)
    lines.append(f"trials at a time: {'at least ' if unsaid else 'up to '}{sum(held.values())} of {each} ({parts})")
    lines += _cost(file, prices)
    return lines


def _machine(file: ClusterFile, name: str, pool: Pool, most: int, prices: Prices) -> str:
    def said(count: int | None) -> str:
        return "its own" if count is None else str(count)

    market = "spot" if pool.is_spot else "on demand" if file.provider in ("aws", "gcp") else ""
    price = _hourly(file, pool, prices)
    cost = f"  {price:.2f} USD an hour each" if price is not None else ""
    what = f"{pool.instance or 'machine':16s} CPU {said(pool.cpus):>7s}  GPU {said(pool.gpus):>7s}"
    return f"{name:14s} {pool.least if name != 'head' else 1} to {most} x {what}  {market:9s}{cost}".rstrip()


def _hourly(file: ClusterFile, pool: Pool, prices: Prices) -> float | None:
    price = prices.get((file.provider, pool.instance))
    return None if price is None else price.spot_usd if pool.is_spot else price.on_demand_usd


def _cost(file: ClusterFile, prices: Prices) -> list[str]:
    if file.provider not in ("aws", "gcp"):
        return ["cost an hour: not known, the machines are not bought by this file"]
    machines = [(file.head, 1, 1), *((pool, pool.least, pool.most) for pool in file.pools)]
    unknown = sorted({pool.instance or pool.name for pool, *_ in machines if _hourly(file, pool, prices) is None})
    if unknown:
        return [f"cost an hour: not known; the price table lacks {', '.join(unknown)} (--prices FILE)"]
    hourly = [(_hourly(file, pool, prices) or 0.0, least, most) for pool, least, most in machines]
    idle, full = sum(usd * least for usd, least, _ in hourly), sum(usd * most for usd, _, most in hourly)
    dates = sorted({prices[file.provider, pool.instance].as_of for pool, *_ in machines})
    return [
        f"cost an hour: about {idle:.2f} USD idle, {full:.2f} USD with every machine (list prices of {dates[0]}; "
        "prices change, spot by the hour: --prices FILE)"
    ]
