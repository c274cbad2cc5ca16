"""The registry: published bundles, and the names such as ``champion`` that point to them.

    registry/bundles/ens-0123456789ab/   an immutable bundle
    registry/aliases.json                {"champion": "ens-0123456789ab"}
    registry/history.jsonl               one line a change: who was what, and when

On a local disk a bundle appears by one rename and the two files change under a lock. An object store has neither:
there the manifest is uploaded last, and of two people who move an alias at the same moment the later one wins.
"""

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ensemble.bundle import MARKER, VERSION_PATTERN, Bundle, BundleError
from preprocessing.storage import AnyPath, as_path, is_local, read_json, write_atomic, write_json

CHAMPION = "champion"
_ALIAS_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class RegistryError(ValueError):
    """The registry has no such bundle or name."""


@dataclass(frozen=True)
class Published:
    """What became of a bundle that was handed in."""

    version: str
    folder: AnyPath
    is_new: bool
    """False when the registry held the same content already."""


class Registry:
    """Bundles and aliases below one folder, local or at any fsspec URI."""

    def __init__(self, path: str | Path | AnyPath) -> None:
        self.path = as_path(path)

    def publish(self, build: Callable[[Path], str]) -> Published:
        """Publish a bundle atomically; content that is there already is left alone.

        Args:
            build: Writes a complete bundle into the empty local folder it is given, and returns the version.

        Raises:
            BundleError: What was built, or what the registry holds under its version, does not pass its own check.
        """
        staging = self._staging_folder()
        try:
            version = build(staging)
            Bundle.load(staging)  # nothing is published that could not be loaded
            target = self._folder(version)
            is_new = not (target / MARKER).exists() and _move(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with self._lock():
                self._note({"event": "publish", "version": version})
        else:
            Bundle.load(target)
        return Published(version, target, is_new)

    def resolve(self, name: str = CHAMPION) -> Bundle:
        """Load the bundle that an alias or a version names.

        Raises:
            RegistryError: There is no such alias or version.
            BundleError: The bundle does not pass its check.
        """
        version = name if VERSION_PATTERN.fullmatch(name) else self.aliases().get(name)
        if version is None or not (self._folder(version) / MARKER).exists():
            known = sorted(self.aliases()) + self._names()
            have = (
                f"It has {', '.join(known)}." if known else "It is empty: run python -m ensemble build STUDY REGISTRY."
            )
            raise RegistryError(f"{self.path} has no bundle {name!r}. {have}")
        bundle = Bundle.load(self._folder(version))
        if bundle.version != version:
            raise BundleError(f"{self._folder(version)} holds {bundle.version}. Publish it again from its study.")
        return bundle

    def aliases(self) -> dict[str, str]:
        """Alias to version."""
        path = self.path / "aliases.json"
        return dict(read_json(path)) if path.exists() else {}

    def set_alias(self, alias: str, version: str) -> str | None:
        """Let an alias point to a published version.

        Returns:
            The version it pointed to before, or None.

        Raises:
            RegistryError: The alias is no plain word, or there is no such version.
        """
        check_alias(alias)
        if version not in self._names():
            raise RegistryError(f"{self.path} has no bundle {version!r}, so {alias!r} cannot point to it.")
        with self._lock():
            aliases = self.aliases()
            previous = aliases.get(alias)
            if previous != version:
                write_json(self.path / "aliases.json", {**aliases, alias: version})
                self._note({"event": "alias", "alias": alias, "version": version, "previous": previous})
        return previous

    def versions(self) -> list[dict[str, Any]]:
        """One dict a bundle, as its manifest has it, oldest first: version, aliases, published, members, evidence."""
        aliases = self.aliases()
        published = {line["version"]: line["time"] for line in self.history() if line["event"] == "publish"}
        rows = []
        for version in self._names():
            manifest = read_json(self._folder(version) / MARKER)
            rows.append(
                {
                    "version": version,
                    "aliases": sorted(alias for alias, target in aliases.items() if target == version),
                    "published": published.get(version),
                    "recipe": manifest["recipe_hash"],
                    "members": len(manifest["members"]),
                    "evidence": manifest["evidence"],
                }
            )
        return sorted(rows, key=lambda row: (row["published"] or "", row["version"]))

    def history(self) -> list[dict[str, Any]]:
        """Every change, oldest first."""
        path = self.path / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _folder(self, version: str) -> AnyPath:
        return self.path / "bundles" / version

    def _names(self) -> list[str]:
        bundles = self.path / "bundles"
        if not bundles.exists():
            return []
        names = (path.name for path in bundles.iterdir() if VERSION_PATTERN.fullmatch(path.name))
        return sorted(name for name in names if (bundles / name / MARKER).exists())

    def _staging_folder(self) -> Path:
        if not is_local(self.path):
            return Path(tempfile.mkdtemp(prefix="carpal-bundle-"))
        bundles = Path(str(self.path)) / "bundles"
        bundles.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".staging-", dir=bundles))

    def _note(self, change: dict[str, Any]) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **change}) + "\n"
        path = self.path / "history.jsonl"
        before = path.read_text() if path.exists() else ""
        write_atomic(path, (before + line).encode())

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        if not is_local(self.path):
            yield
            return
        import fcntl  # POSIX only, and needed only here

        with (Path(str(self.path)) / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also by a kill
            yield


def check_alias(alias: str) -> None:
    """Refuse what cannot be an alias.

    Raises:
        RegistryError: It is no plain word, or looks like a version.
    """
    if not _ALIAS_PATTERN.fullmatch(alias) or VERSION_PATTERN.fullmatch(alias):
        raise RegistryError(f"An alias is a word of a-z, 0-9, _ and - of at most 32 letters, got {alias!r}.")


def registry_or_bundle(path: str | Path | AnyPath, name: str = CHAMPION) -> Bundle:
    """Load the bundle in a folder, or the bundle that `name` means in a registry.

    Raises:
        BundleError: The bundle does not pass its check.
        RegistryError: The folder is neither, or the registry has no such bundle.
    """
    folder = as_path(path)
    if (folder / MARKER).exists():
        return Bundle.load(folder)
    if not folder.exists():
        raise RegistryError(f"{folder} does not exist. Name a registry, or one of its bundles.")
    return Registry(folder).resolve(name)


def _move(staging: Path, target: AnyPath) -> bool:
    """Make a finished bundle visible; False when another publisher was faster with the same content."""
    if isinstance(target, Path):  # as_path makes every local path one
        staging.chmod(0o755)  # mkdtemp makes it private; a registry has several readers
        try:
            staging.rename(target)
        except OSError:
            if not (target / MARKER).exists():
                raise
            return False
        return True
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == MARKER):
        remote = target / path.relative_to(staging).as_posix()
        remote.fs.put_file(str(path), remote.path)
    return True
