"""Command line of the fourth stage: ``python -m serve REGISTRY`` answers HTTP until it is stopped.

``python -m serve keys …``, ``experiment …``, ``add …``, ``retire …`` and ``images …`` steer it meanwhile; see their
--help.
"""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from preprocessing import environment
from preprocessing.storage import as_path
from serve import admin
from serve.boundary import FOR_PROCESSES, is_loopback
from serve.database import Database, LedgerDownError, LedgerError
from serve.image_commands import images_folder
from serve.images import KeptImages
from serve.outset import Outset
from serve.protocol import describe
from serve.routing import RoutingConflictError
from serve.succession import Given
from serve.transport import Transport, choose, free_port, port_is_free
from serve.versions import ANSWER_TIMEOUT_S

if TYPE_CHECKING:
    from ensemble.bundle import Bundle
    from ensemble.registry import Registry

_REFUSALS = (ValueError, OSError, ImportError, LedgerDownError, RoutingConflictError)
"""What keeps a service from starting, in a sentence: most of ours are ValueErrors."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; a wrong input gives one sentence and exit status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    if admin.is_command(words):
        return admin.main(words)
    options = _parser().parse_args(words)
    say = partial(_say, time.monotonic())
    stop = threading.Event()

    def claim_signals() -> None:
        for each in _SIGNALS:  # any number of them: a second one does not cut the draining short
            signal.signal(each, lambda number, frame: stop.set())

    claim_signals()
    return _serve(options, stop, claim_signals, say)


def _serve(
    options: argparse.Namespace,
    stop: threading.Event,
    claim_signals: Callable[[], None],
    say: Callable[[str], None],
) -> int:
    try:
        port = options.port or free_port(options.host)
    except OSError as error:
        return _refuse(str(error))
    if not options.address and not port_is_free(options.host, port):
        return _refuse(f"Nothing can listen at {options.host}:{port}: it is taken, or no address of this machine.")
    transport = choose(options.host, port, ANSWER_TIMEOUT_S, plain=options.plain, is_joined=bool(options.address))
    environment.prepare(FOR_PROCESSES | transport.settings, own_ray=not options.address)
    try:
        return _run(options, port, transport, stop, claim_signals, say)
    finally:
        transport.remove()


def _run(
    options: argparse.Namespace,
    port: int,
    transport: Transport,
    stop: threading.Event,
    claim_signals: Callable[[], None],
    say: Callable[[str], None],
) -> int:
    # these load torch and Ray: not for --help, nor for a mistyped option, nor before the environment is right
    from ensemble.registry import Registry
    from serve.service import Service, ServiceError, Setting

    if options.open and not is_loopback(options.host):
        return _refuse(f"--open is for this machine alone, and {options.host} is open to others. Make a key instead.")
    say("checking the bundle")
    try:
        registry = Registry(as_path(options.registry))
        given = Given.of(registry, options.version)
        bundle = registry.resolve(given.version)
        ledger = admin.ledger_url(registry.path, options.ledger)
        database = Database(ledger, must_answer=False)
        outset = Outset.read(database, admin.spool_folder(registry.path), given)
        if outset.state.champion != given.version:
            bundle = _champion(registry, outset.state.champion)
        versions = [describe(bundle, registry.aliases())]
        if not options.open and not outset.has_keys:
            return _refuse(
                f"No key opens this service. Make one: python -m serve keys add {options.registry} NAME --role score. "
                "Or, on this machine alone, let everybody in: --open"
            )
        if options.keep_images is not None:
            KeptImages(images_folder(registry.path), options.keep_images)  # refused now, not at the first image
    except _REFUSALS as error:
        return _refuse(str(error))
    if outset.outage:
        say(outset.outage)
        say("starting by what was read last; answers wait in the spool until it is back")
        if bundle.version != given.version:
            say(f"{bundle.version} answers until then, and not {given.version}")
    for line in (outset.why, *outset.left):
        if line:
            say(line)
    setting = Setting(
        registry,
        database,
        ledger,
        admin.spool_folder(registry.path),
        options.open,
        options.host,
        port,
        options.address,
        options.gpus,
        transport,
        None if options.sleep is None else 60 * options.sleep,
        options.keep_images or 0.0,
    )
    service = Service(setting, outset, given, versions, stop, claim_signals, say)
    try:
        if service.start():
            say(f"ready at {service.url}")
            while not stop.wait(1.0):
                service.follow()
    except ServiceError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    finally:
        say("stopping: requests under way are answered first")
        service.end()
        say("stopped")
    return 0


def _champion(registry: "Registry", version: str) -> "Bundle":
    try:
        return registry.resolve(version)
    except ValueError as error:
        raise LedgerError(
            f"The ledger's champion cannot be loaded. {error} Or let another one answer: --version"
        ) from error


def _say(begin: float, line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a reader that went away, must not end the service
        print(f"{time.monotonic() - begin:5.1f} s  {line}", flush=True)


def _refuse(sentence: str) -> int:
    print(f"serve: {sentence}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    parser.add_argument("registry", help="registry that `python -m ensemble build` published to, or its fsspec URI")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen at; 0 takes a free one (default 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    later = "the ledger's, or the registry's where that was moved later"
    parser.add_argument("--version", default="champion", help=f"alias or version to serve (default champion: {later})")
    parser.add_argument("--address", help="Ray cluster to run on (default: a Ray of its own on this machine)")
    parser.add_argument("--ledger", help="URL of the ledger (default: $CARPAL_LEDGER, else SQLite in the registry)")
    keeping = "keep radiographs so long, encrypted with $CARPAL_IMAGE_KEY (default: keep none)"
    parser.add_argument("--keep-images", type=float, metavar="DAYS", help=keeping)
    sleeping = "let a version beside the champion give its replicas back when it was asked nothing for so long"
    parser.add_argument("--sleep", type=_minutes, metavar="MINUTES", help=f"{sleeping} (default: keep all warm)")
    parser.add_argument("--open", action="store_true", help="ask for no key; on loopback only")
    parser.add_argument("--plain", action="store_true", help="Serve's own proxy, though HAProxy is there")
    parser.add_argument("--gpus", type=float, help="GPUs of each ensemble replica (default: 1 where there are any)")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port lies within 0..65535, got {text!r}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"a time in minutes is above 0, got {text!r}")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
