"""The registry: published bundles, and the names such as ``champion`` that point to them.

    registry/bundles/ens-0123456789ab/   an immutable bundle
    registry/changes/000000001.json      who was published, what points where, and since when (`ensemble.changes`)

A bundle appears whole or not at all: on a local disk by one rename, in an object store by its manifest, which is
uploaded last. What a killed publisher left is hidden, and swept away by the next one.

A folder whose removal is on record is never a bundle's again: who publishes that version once more puts it into
``ens-0123456789ab.2``. So the record alone decides what is there, and who takes the files away afterwards, however
late, cannot take another's.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.bundle import MARKER, VERSION_PATTERN, Bundle, BundleError
from ensemble.changes import Change, Changes, State
from ensemble.staging import move_in, staging_folder, take_away
from preprocessing.storage import AnyPath, StorageError, as_path, is_local, read_json, remote

CHAMPION = "champion"
_ALIAS_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
ANYTHING = "anything"
"""Where an alias may point before it is moved, unless the caller knows better."""


class RegistryError(ValueError):
    """The registry has no such bundle or name, or may not be changed like that."""


class AliasMoved(RegistryError):
    """Somebody else moved the alias in the meantime."""


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
        self._changes = Changes(self.path / "changes")

    def publish(self, build: Callable[[Path], str]) -> Published:
        """Publish a bundle atomically; content that is there already is left alone.

        Args:
            build: Writes a complete bundle into the empty local folder it is given, and returns the version.

        Raises:
            BundleError: What was built, or what the registry holds under its version, does not pass its own check.
        """
        moved_in: set[AnyPath] = set()
        folder = self.path

        def decide(state: State) -> tuple[Change, State] | None:
            nonlocal folder
            folder = self._folder(version, state)
            if not (folder / MARKER).exists() and move_in(staging, folder):
                moved_in.add(folder)
            if folder not in moved_in:
                Bundle.load(folder)
                if self._is_published(version):
                    return None
            return {"event": "publish", "version": version}, state

        with staging_folder(self.path / "bundles") as staging:
            version = build(staging)
            Bundle.load(staging)  # nothing is published that could not be loaded
            self._changes.make(decide)
        return Published(version, folder, folder in moved_in)

    def resolve(self, name: str = CHAMPION) -> Bundle:
        """Load the bundle that an alias or a version names.

        Raises:
            RegistryError: There is no such alias or version.
            BundleError: The bundle does not pass its check.
        """
        version = self.version_of(name)
        folder = self.folder_of(version)
        bundle = Bundle.load(folder)
        if bundle.version != version:
            raise BundleError(f"{folder} holds {bundle.version}. Publish it again from its study.")
        return bundle

    def folder_of(self, version: str) -> AnyPath:
        """Where a version lies, or would lie where it is not there."""
        return self._folder(version, self._changes.state())

    def version_of(self, name: str) -> str:
        """The version that an alias or a version names.

        Raises:
            RegistryError: There is no such alias or version.
        """
        names, aliases = self._names(), self.aliases()
        version = name if VERSION_PATTERN.fullmatch(name) else aliases.get(name)
        if version is None or version not in names:
            known = sorted(aliases) + names
            have = (
                f"It has {', '.join(known)}." if known else "It is empty: run python -m ensemble build STUDY REGISTRY."
            )
            raise RegistryError(f"{self.path} has no bundle {name!r}. {have}")
        return version

    def aliases(self) -> dict[str, str]:
        """Alias to version."""
        return dict(self._changes.state()["aliases"])

    def set_alias(
        self, alias: str, version: str, *, expected: str | None = ANYTHING, note: dict[str, Any] | None = None
    ) -> str | None:
        """Let an alias point to a published version.

        Args:
            alias: A plain word.
            version: Where to.
            expected: The version it must point to until now, None for a new alias; left out, any will do.
            note: What else to remember of the change, as JSON values.

        Returns:
            The version it pointed to before, or None.

        Raises:
            RegistryError: The alias is no plain word, or there is no such version.
            AliasMoved: It does not point to what was `expected`.
        """
        check_alias(alias)
        before: list[str | None] = []

        def decide(state: State) -> tuple[Change, State] | None:
            if version not in self._names(state):
                raise RegistryError(f"{self.path} has no bundle {version!r}, so {alias!r} cannot point to it.")
            previous = state["aliases"].get(alias)
            before[:] = [previous]
            if expected not in (ANYTHING, previous):
                raise AliasMoved(
                    f"{alias!r} must point to {expected or 'nothing yet'} to be moved, and points to {previous}: "
                    "somebody was faster. Look at it again with: python -m ensemble list"
                )
            if previous == version:
                return None
            change = {"event": "alias", "alias": alias, "version": version, "previous": previous, **(note or {})}
            return change, {**state, "aliases": {**state["aliases"], alias: version}}

        self._changes.make(decide)
        return before[0]

    def rollback(self, alias: str) -> tuple[str, str]:
        """Take back the last move of an alias that was not taken back yet: it points again to where it did before.

        Rolling back twice goes back two steps, not forth again; steps to what was removed since are passed over.

        Returns:
            The version it points to now, and the one before.

        Raises:
            RegistryError: There is no such alias, or nothing that it pointed to before and that is still there.
        """
        check_alias(alias)
        trail: list[str] = []
        for change in self.history():
            if change["event"] == "alias" and change["alias"] == alias:
                if change.get("rollback"):
                    while trail and trail.pop() != change["version"]:
                        continue
                trail.append(change["version"])
        names, current = self._names(), self.aliases().get(alias)
        earlier = [version for version in trail[:-1] if version in names and version != current]
        if current is None or not earlier:
            raise RegistryError(f"{self.path}: {alias!r} has nothing to go back to. See: python -m ensemble list")
        self.set_alias(alias, earlier[-1], expected=current, note={"rollback": True})
        return earlier[-1], current

    def remove(self, version: str) -> None:
        """Take a bundle away; never one that an alias points to.

        Raises:
            RegistryError: There is no such bundle, or an alias points to it.
        """

        def decide(state: State) -> tuple[Change, State] | None:
            if pointing := sorted(alias for alias, target in state["aliases"].items() if target == version):
                raise RegistryError(f"{version} is {', '.join(pointing)}: move that alias first, then remove it.")
            if version in self._names(state):
                removed = [*state["removed"], self._folder(version, state).name]
                return {"event": "remove", "version": version}, {**state, "removed": removed}
            if not self._left_behind(version, state):
                raise RegistryError(f"{self.path} has no bundle {version!r}. See: python -m ensemble list")
            return None

        self._changes.make(decide)
        for folder in self._left_behind(version, self._changes.state()):
            take_away(folder)

    def note(self, change: Change) -> None:
        """Record something about a bundle that changes no alias, such as the verdict of a stress test."""
        self._changes.make(lambda state: (change, state))

    def versions(self) -> list[dict[str, Any]]:
        """One dict a bundle, as its manifest has it, oldest first: version, aliases, published, members, evidence.

        ``fault`` says why a manifest cannot be read, and is None otherwise; published is None where no record says it.
        """
        state, (changes, _) = self._changes.state(), self._changes.readable()
        published = {line["version"]: line["time"] for line in changes if line["event"] == "publish"}
        order = {version: place for place, version in enumerate(published)}  # several may share a second
        return [
            {
                "version": version,
                "aliases": sorted(alias for alias, target in state["aliases"].items() if target == version),
                "published": published.get(version),
                **_contents(self._folder(version, state) / MARKER),
            }
            for version in sorted(self._names(state), key=lambda version: (order.get(version, -1), version))
        ]

    def faults(self) -> list[str]:
        """A sentence for each record of a change that is broken: `history` refuses them."""
        return self._changes.readable()[1]

    def history(self) -> list[Change]:
        """Every change, oldest first."""
        return self._changes.all()

    def _is_published(self, version: str) -> bool:
        """Whether the last record of its coming and going is that it came."""
        events = [line["event"] for line in self.history() if line.get("version") == version]
        return [event for event in events if event in ("publish", "remove")][-1:] == ["publish"]

    def _folder(self, version: str, state: State) -> AnyPath:
        """Where a version lies, or would: in the first of its folders that was never removed."""
        names = (version if count == 1 else f"{version}.{count}" for count in itertools.count(1))
        return self.path / "bundles" / next(name for name in names if name not in state["removed"])

    def _left_behind(self, version: str, state: State) -> list[AnyPath]:
        """Folders of a version whose removal is on record, and of which files are there."""
        bundles = self.path / "bundles"
        folders = [bundles / name for name in state["removed"] if name.partition(".")[0] == version]
        return [folder for folder in folders if folder.exists()]

    def _names(self, state: State | None = None) -> list[str]:
        bundles, state = self.path / "bundles", state or self._changes.state()
        if not bundles.exists():
            return []
        if not is_local(self.path):
            remote(self.path).fs.invalidate_cache()
        found = {path.name.partition(".")[0] for path in bundles.iterdir()}
        versions = sorted(name for name in found if VERSION_PATTERN.fullmatch(name))
        return [version for version in versions if (self._folder(version, state) / MARKER).exists()]


def _contents(marker: AnyPath) -> dict[str, Any]:
    """What a manifest says that is no more than looked at; `Bundle.load` is what checks it."""
    try:
        manifest = read_json(marker)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("members"), list):
            raise StorageError(f"{marker} is no manifest of a bundle. Restore it, or publish the bundle again.")
        entries = {"recipe": manifest.get("recipe_hash"), "evidence": manifest.get("evidence")}
        weighed = [member for member in manifest["members"] if isinstance(member, dict) and member.get("weight")]
        return entries | {"members": len(weighed), "fault": None}
    except StorageError as error:
        return {"recipe": None, "evidence": None, "members": None, "fault": str(error)}


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


def named_bundle(text: str, name: str = CHAMPION) -> Bundle:
    """Load what a command line names: a bundle's folder, a registry, or ``REGISTRY@VERSION_OR_ALIAS``.

    Args:
        text: The word.
        name: What a registry without an ``@`` means.

    Raises:
        BundleError: The bundle does not pass its check.
        RegistryError: There is no such bundle.
    """
    registry, chosen = _split(text)
    return Registry(registry).resolve(chosen) if chosen else registry_or_bundle(text, name)


def registry_of(text: str) -> Registry | None:
    """The registry among the words that `named_bundle` takes; None where a bundle's folder is named."""
    registry, _ = _split(text)
    return None if (as_path(registry) / MARKER).exists() else Registry(registry)


def registry_around(bundle: Bundle) -> Registry | None:
    """The registry that a bundle lies in, however it was named; None where it lies in none."""
    folder = as_path(bundle.location or str(bundle.folder))
    registry = folder.parent.parent
    version = folder.name.partition(".")[0]  # what was removed and published again lies in ens-....2
    is_inside = version == bundle.version and folder.parent.name == "bundles" and (registry / "changes").exists()
    return Registry(registry) if is_inside else None


def _split(text: str) -> tuple[str, str]:
    """Registry and name in ``REGISTRY@NAME``; the whole and nothing where no name is in it."""
    registry, at, chosen = text.rpartition("@")
    is_name = _ALIAS_PATTERN.fullmatch(chosen) or VERSION_PATTERN.fullmatch(chosen)
    return (registry, chosen) if at and is_name and not as_path(text).exists() else (text, "")
