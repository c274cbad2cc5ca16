"""The bundle: one immutable ensemble version, in a folder that answers for every byte in it.

    manifest.json                       members, weights, recipe, evidence, hashes; written last
    members/0007/fold_0.safetensors     a fold model of trial 7
    segmenter.safetensors               the weights that find the hand, where the recipe names any

The version is a hash of the manifest, and the manifest holds the hash of every other file: the same content has the
same version on any machine, and a changed byte is found when the bundle is loaded. Nothing in it is ever executed.
"""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import AnyPath, StorageError, as_path, canonical_hash, fetch, sha256_file, write_json
from search.space import TrialConfig

MARKER = "manifest.json"
SCHEMA = "carpal-bundle-2"
VERSION_PATTERN = re.compile(r"ens-[0-9a-f]{12}")
_FILE_PATTERN = re.compile(r"members/[0-9]{1,9}/fold_[0-9]{1,4}\.safetensors")


class BundleError(ValueError):
    """The folder is no bundle that this release may serve."""


@dataclass(frozen=True)
class Member:
    """A trial kept with a weight; served as the average of its fold models."""

    trial: int
    weight: float
    config: TrialConfig
    files: tuple[Path, ...]
    """Weights of its fold models, local and checked."""


@dataclass(frozen=True)
class Bundle:
    """A checked ensemble version on this machine's disk."""

    folder: Path
    manifest: dict[str, Any]
    """As `manifest.json` holds it."""
    members: tuple[Member, ...]
    recipe: Recipe
    segmenter: Path | None = None
    """Weights that find the hand, local and checked; None where the recipe names none."""

    @property
    def version(self) -> str:
        """``ens-`` and 12 hex digits."""
        return str(self.manifest["version"])

    @property
    def training_median_months(self) -> float:
        """Median bone age of the cases outside the locked test: what a predictor without eyes would say."""
        return float(self.manifest["training_median_months"])

    @classmethod
    def load(cls, path: str | Path | AnyPath) -> "Bundle":
        """Open a bundle, local or remote (then copied to this machine once), and check all of it.

        Raises:
            BundleError: It is incomplete, of another schema, changed since it was written, or names a file that it
                may not.
        """
        try:
            folder = fetch(as_path(path), MARKER)
            content = (folder / MARKER).read_bytes()
        except (StorageError, OSError) as error:
            raise BundleError(f"{path} is not a bundle: {error}") from None
        manifest = _parse(content, path)
        recipe = Recipe.from_dict(manifest["recipe"])
        members = tuple(_load_member(folder, entry, recipe) for entry in manifest["members"])
        segmenter = _check_content(folder / SEGMENTER, recipe.segmenter) if recipe.segmenter else None
        _check_complete(folder, manifest, members, segmenter)
        return cls(folder, manifest, members, recipe, segmenter)


def version_of(manifest: dict[str, Any]) -> str:
    """The version that a manifest's content has; its own ``version`` entry does not count."""
    return "ens-" + canonical_hash({key: value for key, value in manifest.items() if key != "version"})[:12]


def write_manifest(folder: Path, content: dict[str, Any]) -> str:
    """Finish a bundle whose other files are written.

    Args:
        folder: Holds the members' files.
        content: Everything but ``schema`` and ``version``; no time stamps, so that the same study gives the same
            version twice.

    Returns:
        The version.
    """
    manifest = {"schema": SCHEMA, "version": "", **content}
    manifest["version"] = version_of(manifest)
    write_json(folder / MARKER, manifest)
    return str(manifest["version"])


def copy_checked(source: AnyPath, target: Path, sha256: str) -> None:
    """Copy weights into a bundle that is being written.

    Raises:
        BundleError: The file is not what its record says.
    """
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(1 << 20):
            digest.update(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    if digest.hexdigest() != sha256:
        raise BundleError(
            f"{source} must have the sha256 {sha256[:12]}... that was recorded, got {digest.hexdigest()[:12]}... "
            "Restore it from a backup."
        )


def _parse(content: bytes, path: str | Path | AnyPath) -> dict[str, Any]:
    where = f"{path}/{MARKER}"
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{where} is not valid JSON ({error}). Publish the bundle again.") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise BundleError(f"{where} must have the schema {SCHEMA}, got {schema!r}. Use the release that wrote it.")
    if version_of(manifest) != manifest.get("version"):
        raise BundleError(f"{where} was changed after it was written: its content is not what its version names.")
    try:
        weights = [float(member["weight"]) for member in manifest["members"]]
        Recipe.from_dict(manifest["recipe"])
        median = float(manifest["training_median_months"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{where} is incomplete ({type(error).__name__}: {error}).") from None
    if not all(weight > 0 for weight in weights) or not math.isclose(math.fsum(weights), 1, abs_tol=1e-9):
        raise BundleError(f"{where}: weights must be above 0 and sum to 1, got {weights}.")
    if not math.isfinite(median):
        raise BundleError(f"{where}: training_median_months must be a number, got {median}.")
    return manifest


def _load_member(folder: Path, entry: dict[str, Any], recipe: Recipe) -> Member:
    try:
        trial, config = int(entry["trial"]), TrialConfig.from_dict(entry["config"])
        folds = [(str(fold["file"]), str(fold["sha256"])) for fold in entry["folds"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder.name}: a member is incomplete ({type(error).__name__}: {error}).") from None
    if not folds:
        raise BundleError(f"{folder.name}: member {trial} must have 1 fold model or more, got none.")
    if config.view not in recipe.views:
        raise BundleError(
            f"{folder.name}: member {trial} sees the view {config.view!r}, which the recipe does not make."
        )
    return Member(trial, float(entry["weight"]), config, tuple(_check_file(folder, *fold) for fold in folds))


def _check_file(folder: Path, name: str, sha256: str) -> Path:
    if not _FILE_PATTERN.fullmatch(name):  # before the disk is touched: this also shuts out "..", "/" and pickles
        raise BundleError(
            f"{folder.name}: a member's file must be named members/TRIAL/fold_K.safetensors, got {name!r}."
        )
    return _check_content(folder / name, sha256)


def _check_content(path: Path, sha256: str) -> Path:
    if not path.is_file():
        raise BundleError(f"{path} is missing. Publish the bundle again from its study.")
    if (found := sha256_file(path)) != sha256:
        raise BundleError(
            f"{path} was changed: sha256 must be {sha256[:12]}..., got {found[:12]}... Publish the bundle again."
        )
    try:
        with safe_open(path, framework="numpy"):  # reads the header only
            pass
    except SafetensorError as error:
        raise BundleError(f"{path} is no safetensors file ({error}). Publish the bundle again.") from None
    return path


def _check_complete(
    folder: Path, manifest: dict[str, Any], members: tuple[Member, ...], segmenter: Path | None
) -> None:
    """Refuse a file that nobody vouches for: a later reader might trust it."""
    if len({member.trial for member in members}) != len(members):
        raise BundleError(f"{manifest['version']} names a trial twice. Publish it again from its study.")
    known = {folder / MARKER, segmenter, *(file for member in members for file in member.files)}
    strangers = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and path not in known and not path.name.startswith(".")
    )
    if strangers:
        raise BundleError(f"{folder} holds {strangers[0]}, which its manifest does not name. Remove it.")
