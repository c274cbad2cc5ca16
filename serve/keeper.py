"""Keeps what runs in line with the routing: loads the versions it names, takes down the others, lets policies act.

One keeper a service: in the process of ``python -m serve``, or in a deployment of its own (`serve.keeping`) where
Serve's configuration file declares the service. It holds no state of its own that a restart would lose: Serve says what
runs, the ledger says what should.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ray import serve
from ray.serve.api import RunTarget
from ray.serve.schema import ApplicationStatusOverview

from ensemble.registry import CHAMPION, Registry
from serve.applications import has_replicas, is_asleep, reason, versions_present
from serve.capacity import Capacity
from serve.database import Database, LedgerDownError
from serve.experiment_policy import Judge
from serve.lifecycle import Lifecycle
from serve.protocol import describe
from serve.releases import Releases
from serve.replicas import version_application
from serve.rounds import Rounds
from serve.routing import Routing, RoutingConflictError, RoutingState
from serve.succession import BY_SERVICE

JUDGE_S = 5.0
"""A running experiment is judged this often at most."""
JUDGE_SHARE = 0.05
"""Of the time may pass in judging: a round costs the same however old the experiment is, but a database may be slow."""
SURPLUS_S = 30.0
"""A version that is named no longer is kept for so long after all that are named run: requests under way end."""
AWAY_S = 60.0
"""A version that has had no healthy replica, or whose bundle could not be read, for so long has failed; a challenger's
experiment is rolled back."""


class Keeper:
    """The versions of one ledger on one Serve.

    Args:
        registry: Where the bundles lie; every node must reach it.
        database: The ledger's.
        capacity: What the replicas of a version may take.
        say: Called with one line at each change.
    """

    def __init__(self, registry: Registry, database: Database, capacity: Capacity, say: Callable[[str], None]) -> None:
        self._registry, self._database, self._capacity, self._say = registry, database, capacity, say
        self._releases = Releases(database, "service")
        self._told: dict[str, str] = {}
        self._surplus_since: dict[str, float] = {}
        self._away_since: dict[str, float] = {}
        self._policy, self._judge_at = Judge(database), 0.0
        self._descriptions: dict[str, dict[str, Any]] = {}
        self._telling = Rounds(say)
        self._agreed: str | None = None
        """Where the registry's champion pointed after the last round: elsewhere, and somebody has moved it."""

    def follow(self, coming: str = "") -> None:
        """One round, to be called once a second by `serve.rounds.Rounds`: the next one may follow any error.

        Args:
            coming: Version on its way to be champion: where the registry names it already, that stays so.
        """
        self._judge()
        state = Routing(self._database).current()
        assert state is not None, "the routing has begun"
        self._watch(state, self._load(state))
        # by itself: a registry that cannot be written to keeps nothing from being loaded, crowned or called ready
        self._telling.run(partial(self._tell_registry, coming))

    def targets(self, versions: Iterable[str], champion: str) -> list[RunTarget]:
        """The applications of these versions, to be run; each is noted as loading.

        Args:
            versions: To be loaded.
            champion: Which never sleeps, whatever the others may.

        Raises:
            RegistryError: There is no such version, or a byte of it has changed.
        """
        found = []
        for version in versions:
            self._say(f"loading {version} on the {'GPU' if self._capacity.ensemble_gpus else 'CPU'}")
            bundle = self._registry.resolve(version)  # every byte is checked
            self._descriptions[version] = describe(bundle, self._registry.aliases())
            sleeps = self._capacity.sleep_after_s is not None and version != champion
            self._descriptions[version]["sleeps"] = sleeps
            capacity = self._capacity if sleeps else replace(self._capacity, sleep_after_s=None)
            application = version_application(str(self._registry.path), version, bundle.recipe, capacity)
            with contextlib.suppress(LedgerDownError):  # it is told what became of them when it is back
                self._tell(version, "loading")
            found.append(RunTarget(application, version, None))
        return found

    def _tell_registry(self, coming: str) -> None:
        """Let the registry's champion be the ledger's, so that whoever reads it finds who answers."""
        named = self._registry.aliases().get(CHAMPION)
        state = Routing(self._database).current()  # after the registry, which a command tells after the ledger
        assert state is not None, "the routing has begun"
        if named not in (state.champion, coming):
            self._registry.set_alias(CHAMPION, state.champion, note=BY_SERVICE)
            if named not in (None, self._agreed):
                self._say(
                    f"the registry's champion was {named} and is {state.champion} now, as in the ledger: while a "
                    "service runs, python -m serve add REGISTRY VERSION --champion changes it"
                )
            named = state.champion
        self._agreed = named

    def _judge(self) -> None:
        if (begin := time.monotonic()) <= self._judge_at:
            return
        is_overtaken = False
        try:
            done = self._policy.act()
        except RoutingConflictError:
            is_overtaken = True  # somebody acted meanwhile: the next round judges what holds now
            raise
        finally:  # after any other error too: the rounds before the next try load and watch
            took = time.monotonic() - begin
            self._judge_at = begin if is_overtaken else begin + max(JUDGE_S, took / JUDGE_SHARE)
        if done and done[0].is_due and done[0].act != "go on":
            self._say(f"experiment {done[1]}: {done[0].act}. {done[0].why}")

    def _load(self, state: RoutingState) -> Mapping[str, ApplicationStatusOverview]:
        """Load what is named and take down what is not; returns what is there then, which takes 25 ms of a core."""
        present, is_new = versions_present(), False
        for version in state.bundles():
            if version not in present or (version == state.champion and self._may_sleep(version)):
                is_new = True
                try:
                    serve.run_many(self.targets([version], state.champion), wait_for_applications_running=False)
                    self._away_since.pop(version, None)
                except (ValueError, OSError) as error:
                    # a store that blinks is no fault of the version
                    is_away = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
                    (self._miss if is_away else self._fail)(version, state, str(error))
        is_replaced = all(name in present and present[name].status == "RUNNING" for name in state.bundles())
        surplus, now = set(present) - set(state.bundles()), time.monotonic()
        # counted from when what replaces it runs: a gateway finds that out a moment later, and sends to this until then
        self._surplus_since = {name: self._surplus_since.get(name, now) for name in surplus if is_replaced}
        for version, since in self._surplus_since.items():
            if now - since > SURPLUS_S:
                self._take_down(version)
        return versions_present() if is_new else present

    def _watch(self, state: RoutingState, present: Mapping[str, ApplicationStatusOverview]) -> None:
        """Note which versions are ready, and act on those that will not come or do not come back."""
        for version in state.bundles():
            status = present[version].status if version in present else "NOT_STARTED"
            if status == "RUNNING" or (status == "UNHEALTHY" and has_replicas(present[version])):
                self._tell(version, "asleep" if is_asleep(present[version]) else "ready")
                self._away_since.pop(version, None)
            elif status == "DEPLOY_FAILED":
                self._fail(version, state, reason(present[version]))
            elif status == "UNHEALTHY":
                self._miss(version, state, reason(present[version]))

    def _miss(self, version: str, state: RoutingState, why: str) -> None:
        """A version that is away now fails when it stays so."""
        if time.monotonic() - self._away_since.setdefault(version, time.monotonic()) > AWAY_S:
            self._fail(version, state, f"It was lost for {AWAY_S:.0f} s: {why}")

    def _fail(self, version: str, state: RoutingState, why: str) -> None:
        """A version that cannot be had: nothing waits for it any longer, except for a champion."""
        self._tell(version, "failed", why)
        role = state.role_of(version)
        if role == "champion":
            return  # there is none to put in its place; Serve goes on trying
        if role == "challenger":
            assert state.experiment is not None
            Lifecycle(self._database, "policy", judged=state.version).rollback(
                state.experiment.name, {"why": f"The challenger cannot be served. {why}"}
            )
        if version in state.loaded:
            self._releases.retire(version, reason=f"It cannot be served. {why}")
        if version in versions_present():
            serve.delete(version)
        self._told.pop(version, None)
        self._away_since.pop(version, None)

    def _may_sleep(self, version: str) -> bool:
        """Whether it was put up as a version that sleeps when nobody asks it, by this keeper or by one before."""
        if version not in self._descriptions and (row := self._releases.row(version)):
            self._descriptions[version] = row["description"]
        return bool(self._descriptions.get(version, {}).get("sleeps"))

    def _take_down(self, version: str) -> None:
        self._say(f"taking {version} down")
        serve.delete(version)
        self._releases.forget(version)
        self._told.pop(version, None)
        self._away_since.pop(version, None)

    def _tell(self, version: str, status: str, why: str = "") -> None:
        if self._told.get(version) == status:
            return
        if status == "failed":
            self._say(f"{version} cannot be served: {why}")
        self._releases.tell(version, status, self._descriptions.get(version), why)
        self._told[version] = status
