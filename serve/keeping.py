"""A keeper as a deployment of its own, for a service that Serve's configuration file declares."""

import logging
import threading
import time

from ray import serve

from ensemble.registry import Registry
from preprocessing.storage import as_path
from serve import logs
from serve.applications import versions_present
from serve.capacity import Capacity, keeper_options
from serve.database import wait_for_database
from serve.keeper import Keeper
from serve.rollout import Rollout
from serve.rounds import Rounds
from serve.routing import Routing

FOLLOW_S = 1.0
"""Between two rounds."""
HUNG_S = 180.0
"""A round that takes longer will not end: bundles are read and checked in it, from a slow store too."""
START_TIMEOUT_S = 600.0
"""Large bundles from a slow store take minutes; what takes longer will not come."""


class Keep:
    """A `Keeper` as a deployment, for a service that Serve's configuration file declares.

    Its constructor returns when the champion can answer: only then do Serve and KubeRay call the application running.

    Args:
        registry: Folder or fsspec URI.
        version: Alias or version that the file declares, as `serve.rollout` takes it.
        ledger: URL.
        capacity: What the replicas of a version may take.
    """

    def __init__(self, registry: str, version: str, ledger: str, capacity: Capacity) -> None:
        logs.follow_serve("keeper")
        bundles = Registry(as_path(registry))
        self._database = wait_for_database(ledger, START_TIMEOUT_S)
        self._rollout = Rollout.begin(self._database, bundles, version, _say)
        self._keeper, self._rounds = Keeper(bundles, self._database, capacity, _say), Rounds(_say)
        end = time.monotonic() + START_TIMEOUT_S
        while not self._rounds.run(self._round):
            if time.monotonic() > end:
                raise RuntimeError(
                    f"The champion was not ready after {START_TIMEOUT_S:.0f} s. See the log of its replicas."
                )
            time.sleep(FOLLOW_S)
        self._last_round = time.monotonic()
        threading.Thread(target=self._follow, name="keep", daemon=True).start()

    def check_health(self) -> None:
        """Serve starts another replica when this raises."""
        if time.monotonic() - self._last_round > HUNG_S:
            raise RuntimeError(f"No round has ended for {HUNG_S:.0f} s.")

    def _follow(self) -> None:
        while True:
            time.sleep(FOLLOW_S)
            self._rounds.run(self._round)
            self._last_round = time.monotonic()  # one that failed has ended too

    def _round(self) -> bool:
        """Whether the champion can answer."""
        self._keeper.follow(self._rollout.version if self._rollout else "")
        if self._rollout and self._rollout.advance():
            self._rollout = None
        present = versions_present()
        state = Routing(self._database).current()
        assert state is not None, "the routing has begun"
        return state.champion in present and present[state.champion].status == "RUNNING"


def keep_application(registry: str, version: str, ledger: str, capacity: Capacity) -> serve.Application:
    """The application that loads versions and takes them down, for a declared service."""
    deployment = serve.deployment(**keeper_options())(Keep)
    return deployment.bind(registry, version, ledger, capacity)


def _say(line: str) -> None:
    logs.event("keeper", level=logging.WARNING, line=line)
