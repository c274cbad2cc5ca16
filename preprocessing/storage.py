"""Where stages meet: folders, local or at any fsspec URI, whose marker file is written last.

A folder counts as complete when its marker is there, so that a killed writer leaves nothing
that a reader could mistake for a result. Local writes go to a temporary name and are renamed;
object stores make a single object visible at once by themselves.
"""

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from upath import UPath

if TYPE_CHECKING:
    AnyPath = Path  # a remote UPath offers the same methods without being one
else:
    AnyPath = Path | UPath


class StorageError(ValueError):
    """A file that should be there is missing, or holds something else than promised."""


def as_path(text: str | AnyPath) -> AnyPath:
    """Turn a command-line word into an absolute path, or a URI such as ``s3://bucket/study`` into a remote one.

    Ray Tune changes a trial's working directory, so nothing relative may pass this point.

    Raises:
        StorageError: The URI's driver is not installed.
    """
    try:
        path = cast("Path", UPath(text))
        _ = path if is_local(path) else remote(path).fs  # its driver is imported here, not in the middle of a stage
    except ImportError as error:
        raise StorageError(f"{text} needs a driver that is not installed: {error}") from None
    return Path(os.path.abspath(os.path.expanduser(remote(path).path))) if is_local(path) else path  # noqa: PTH100, PTH111


def is_local(path: AnyPath) -> bool:
    """Whether the path lies on this machine's own file system."""
    return not isinstance(path, UPath) or path.protocol in ("", "file", "local")


def remote(path: AnyPath) -> UPath:
    """The same path with what only a remote one has: ``fs`` and ``path``."""
    return cast("UPath", path)


def write_atomic(path: AnyPath, data: bytes) -> None:
    """Write so that a reader sees the old content or the new, never a part of either."""
    if not is_local(path):
        path.write_bytes(data)
        return
    with written_beside(Path(str(path)), data) as temporary:
        temporary.replace(path)


@contextlib.contextmanager
def written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A synced file with this content in the folder of `path`, to be renamed or linked to it; gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private; what lies on shared storage has several readers
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: AnyPath, value: Any) -> None:
    """Write JSON atomically, in the form of `json_bytes`."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON as files hold it: keys in the given order, one readable line per entry."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def create_object(path: AnyPath, data: bytes) -> bool:
    """Write an object to a remote store where none is; False where there is one, and it stays as it is.

    Of two writers at once the second is refused by stores whose driver offers a conditional put; on others both may
    have looked before one has written.
    """
    place = remote(path)
    place.fs.invalidate_cache()  # a listing may be remembered from before the other's writing
    if place.fs.exists(place.path):
        return False
    can_refuse = "mode" in inspect.signature(place.fs.pipe_file).parameters
    try:
        place.fs.pipe_file(place.path, data, **({"mode": "create"} if can_refuse else {}))
    except FileExistsError:  # in the moment between
        return False
    return True


def read_json(path: AnyPath) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StorageError(f"{path} is missing. Check the path, or run the stage that writes it.") from None
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON ({error}). Restore it, or run the stage again.") from None


def find_files(folder: AnyPath) -> list[str]:
    """Paths below a folder of every file that is not hidden, sorted, whatever it holds; nothing is opened.

    Hidden is what has a name that begins with a dot, and what lies in such a folder. A link to a folder counts as a
    file and is not followed: it may lead back.

    Raises:
        OSError: The folder or one below it cannot be listed; what it holds would be missing.
    """
    root = UPath(folder)
    found, folders = list[str](), [root.path]
    while folders:
        place = folders.pop()
        for info in root.fs.ls(place, detail=True):  # fsspec's own walk passes over folders that it may not list
            path = info["name"].rstrip("/")
            if path == place.rstrip("/") or path.rsplit("/", 1)[-1][:1] == ".":  # object stores list a folder in itself
                continue
            (folders if info["type"] == "directory" else found).append(path)
    return sorted(os.path.relpath(path, root.path) for path in found)


def fetch(folder: AnyPath, marker: str) -> Path:
    """Return a local copy of a complete folder: itself when local, else one download per machine and content.

    Args:
        folder: The folder, local or remote.
        marker: Name of the file that is written last; its content keys the cache.

    Raises:
        StorageError: The marker is missing, so the folder is incomplete or no such folder.
    """
    marker_path = folder / marker
    if not marker_path.exists():
        raise StorageError(f"{folder} has no {marker}: it is incomplete or another kind of folder.")
    if is_local(folder):
        return folder
    key = hashlib.sha256(str(folder).encode() + marker_path.read_bytes()).hexdigest()[:24]
    cache = Path(os.environ.get("CARPAL_CACHE", Path.home() / ".cache" / "carpal")) / key
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_name(f".{key}.lock").open("a") as lock:  # one worker of this machine fetches, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however it ends
        if not cache.exists():
            temporary = cache.with_name(f".{key}.partial")
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed in the middle
            there = remote(folder)
            for name in there.fs.find(there.path):
                target = temporary / os.path.relpath(name, there.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                there.fs.get_file(name, str(target))
            temporary.rename(cache)
    return cache


def sha256_file(path: AnyPath) -> str:
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def canonical_hash(value: Any) -> str:
    """Hex digest of a JSON value whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
