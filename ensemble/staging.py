"""How a folder appears in a registry whole, and goes away whole.

On a local disk it is built beside its place under a hidden name and renamed; its builder holds a lock on it, so that
what a killed one left can be told from what is being built. An object store knows no rename: there the manifest goes
up last and comes down first.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ensemble.bundle import MARKER
from preprocessing.storage import AnyPath, is_local, remote

_PREFIX = ".staging-"
_SWEEP_AFTER_S = 60.0
"""Age from which a staging folder that nobody holds counts as left behind."""


@contextlib.contextmanager
def staging_folder(bundles: AnyPath) -> Iterator[Path]:
    """An empty folder on this machine, beside `bundles` where they are here too; whatever is left in it goes."""
    beside = None
    if is_local(bundles):
        beside = Path(str(bundles))
        beside.mkdir(parents=True, exist_ok=True)
        _sweep(beside)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=beside))
    held = os.open(folder, os.O_RDONLY)  # its lock goes with the process, however that ends
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def move_in(staging: Path, target: AnyPath) -> bool:
    """Make a finished bundle visible; False when another publisher was faster with the same content.

    What is in `staging` stays there: where somebody removes the bundle at once, it is moved in elsewhere.
    """
    if isinstance(target, Path):  # as_path makes every local path one
        with staging_folder(target.parent) as links:
            shutil.copytree(staging, links, copy_function=os.link, dirs_exist_ok=True)
            links.chmod(0o755)  # mkdtemp makes it private; a registry has several readers
            try:
                links.rename(target)
            except OSError:
                if not (target / MARKER).exists():
                    raise
                return False
        sync_folder(target.parent)
        return True
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == MARKER):
        place = remote(target / path.relative_to(staging).as_posix())
        place.fs.put_file(str(path), place.path)
    return True


def take_away(folder: AnyPath) -> None:
    """Remove a bundle, or what another who is at it has left; from the first moment on, nobody sees a part of it."""
    if isinstance(folder, Path):
        with staging_folder(folder.parent) as aside, contextlib.suppress(FileNotFoundError):
            folder.rename(aside / folder.name)
        return
    there = remote(folder)
    with contextlib.suppress(FileNotFoundError):
        (folder / MARKER).unlink()
    with contextlib.suppress(FileNotFoundError):
        there.fs.rm(there.path, recursive=True)


def sync_folder(folder: Path) -> None:
    """Let a new name in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(bundles: Path) -> None:
    """Remove staging folders whose publisher is dead: nobody holds their lock."""
    for folder in bundles.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _SWEEP_AFTER_S:
                continue  # perhaps made this moment, and not locked yet
            held = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # its publisher is at work
        finally:
            os.close(held)
