"""A running service: starts or joins Ray, deploys, and takes down again exactly what it put up."""

import contextlib
import http.client
import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.api import RunTarget

from ensemble.registry import Registry
from preprocessing.cluster import connection
from preprocessing.ray_thread import running_beside
from serve.applications import last_line, reason, serve_host, versions_present
from serve.boundary import FOR_PROCESSES, is_loopback
from serve.capacity import Capacity
from serve.database import Database
from serve.deployments import gateway_application
from serve.image_commands import images_folder
from serve.keeper import Keeper
from serve.keeping import START_TIMEOUT_S
from serve.logs import SERVE_LOGGING
from serve.outset import Outset
from serve.rounds import Rounds
from serve.succession import Given, start
from serve.transport import LOOPBACK, Transport
from serve.versions import ANSWER_TIMEOUT_S

GATEWAY = "gateway"


class ServiceError(RuntimeError):
    """The service cannot start: the sentence says why."""


@dataclass(frozen=True)
class Setting:
    """What a service is told once."""

    registry: Registry
    """On a cluster every node must reach it."""
    database: Database
    """The ledger's."""
    ledger: str
    """URL of the ledger; on a cluster the gateway's node must reach it."""
    spool: Path
    """Folder on the gateway's node for predictions while the database is away."""
    is_open: bool
    """Whether callers need no key."""
    host: str
    port: int
    address: str | None
    """A Ray cluster to join; None starts a Ray of its own on this machine."""
    gpus: float | None
    """GPUs of each ensemble replica; None takes one where the cluster shows any."""
    transport: Transport
    """How requests travel."""
    sleep_after_s: float | None = None
    """A version beside the champion gives its replicas back when it was asked nothing for so long; None: never."""
    keep_images_days: float = 0.0
    """For how long radiographs are kept, encrypted; 0 keeps none."""


class Service:
    """The versions that the ledger's routing names, behind one HTTP gateway.

    Args:
        setting: What holds for the whole run.
        outset: The routing with which it starts.
        given: Version that it was started with; told to a ledger that was away at first.
        versions: What ``GET /v1/versions`` lists.
        stop: Set, from a signal handler, to end `start` early. A signal must never raise in here: an exception
            in the middle of Ray's start leaves its processes behind.
        claim_signals: Puts the signal handlers of the caller in place (again).
        say: Called with one line at each step.
    """

    def __init__(
        self,
        setting: Setting,
        outset: Outset,
        given: Given,
        versions: list[dict[str, Any]],
        stop: threading.Event,
        claim_signals: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._setting, self._versions, self._state = setting, versions, outset.state
        self._untold = given if outset.outage else None
        """Version of which the ledger does not know yet."""
        self._began_s = time.time()
        self._host, self._port, self._address = setting.host, setting.port, setting.address
        self._stop, self._claim_signals, self._say, self._rounds = stop, claim_signals, say, Rounds(say)
        self._names: list[str] = []
        """Applications that must run before the service is ready."""
        self._is_ready = False
        self._ray = contextlib.ExitStack()
        self.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def start(self) -> bool:
        """Start or join Ray, deploy, and wait until a request can be answered.

        Returns:
            Whether it answers; False when `stop` was set before.

        Raises:
            ServiceError: A part of it does not start.
        """
        self._start_ray()
        if not self._stop.is_set():
            self._deploy()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stop.is_set():
            if time.monotonic() > deadline:
                raise ServiceError(f"It was not ready after {START_TIMEOUT_S:.0f} s. Ray's logs are in /tmp/ray.")
            if self._all_running() and (self._address or self._answers()):
                self._is_ready = True
                return True
            self._stop.wait(0.2)
        return False

    def follow(self) -> None:
        """Bring what runs into line with the routing, and let the running experiment's policy act; once a second."""
        self._rounds.run(self._round)

    def end(self) -> None:
        """Answer what is under way, then remove what was put up: our own Ray, or our part of a joined one."""
        with contextlib.redirect_stdout(io.StringIO()):  # Ray comments on its own end
            try:
                if self._address or self._is_ready:  # an unready Ray of our own may go at once, with all in it
                    for name in self._names and [GATEWAY, *versions_present()]:  # it drains while its scorers answer
                        serve.delete(name)
                    if self._names and not serve.status().applications:
                        serve.shutdown()
            finally:
                self._ray.close()

    def _round(self) -> None:
        if self._untold:
            _, why = start(self._setting.database, self._untold, self._began_s)
            self._say(f"the ledger is back. {why}".rstrip())
            self._untold = None
        self._keeper.follow()

    def _start_ray(self) -> None:
        where = f"joining the Ray cluster at {self._address}" if self._address else "starting Ray on this machine"
        self._say(where)
        init = partial(ray.init, **connection(self._address, FOR_PROCESSES))
        try:
            self._ray.enter_context(running_beside(init, ray.shutdown, self._claim_signals))
        except Exception as error:
            raise ServiceError(f"Ray cannot be reached or started: {last_line(error)}") from error

    def _deploy(self) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._say(f"{self._setting.transport.name} mode: {self._setting.transport.sentence}")
        capacity = replace(
            Capacity.of(ray.cluster_resources(), self._setting.gpus), sleep_after_s=self._setting.sleep_after_s
        )
        try:
            self._start_serve()
        except (RayActorError, TimeoutError):  # on a busy machine: Serve gives up a slow proxy, and starts another
            self._start_serve()
        versions = (self._state.champion,)  # the keeper loads the others, and takes out what cannot be had
        self._keeper = Keeper(self._setting.registry, self._setting.database, capacity, self._say)
        targets = self._keeper.targets(versions, self._state.champion)
        told = self._setting
        images = (str(images_folder(told.registry.path)), told.keep_images_days) if told.keep_images_days else None
        # an open service listens on loopback alone, and a page elsewhere must not reach it by a name of its own
        gateway = gateway_application(
            self._versions, told.ledger, told.spool, told.is_open, images, is_local=told.is_open
        )
        # side by side: the gateway answers 503 until the ensemble is loaded and warm
        serve.run_many([*targets, RunTarget(gateway, GATEWAY, "/")], wait_for_applications_running=False)
        self._names = [GATEWAY, *versions]

    def _start_serve(self) -> None:
        # behind HAProxy the replicas listen here too: HAProxy alone is for others
        asked = LOOPBACK if self._setting.transport.folder else self._host
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": asked,
                "port": self._port,
                # the gateway gives up first, in our own words
                "request_timeout_s": ANSWER_TIMEOUT_S + 10,
            },
            logging_config=SERVE_LOGGING,
        )
        if (host := serve_host()) == asked:
            return
        if self._setting.is_open and not is_loopback(host):
            raise ServiceError(
                f"--open is for this machine alone, and the Serve of this cluster, which was there before, listens at "
                f"{host}, open to others. Make a key instead, or end that Serve first: serve shutdown"
            )
        self._say(f"the Serve of this cluster was there before, and listens at {host}")

    def _all_running(self) -> bool:
        applications = serve.status().applications
        for name in self._names:
            if applications[name].status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ServiceError(f"Application {name} does not start: {reason(applications[name])}")
        return all(applications[name].status == "RUNNING" for name in self._names)

    def _answers(self) -> bool:
        """Whether the way through the proxy is open: it learns of an application a moment after that runs."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        connection = http.client.HTTPConnection(host, self._port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
