"""The bundle: one immutable ensemble version, in a folder that answers for every byte in it.

    manifest.json                         what `ensemble.manifest` says; written last
    members/0-0007/fold_0.safetensors     a fold model of trial 7 of the first study
    members/0-0009/refit.safetensors      trial 9, trained once more on all folds
    segmenter.safetensors                 the weights that find the hand, where the recipe names any
    evidence/oof.parquet, card.md, ...    whatever else the manifest lists under files

The version is a hash of the manifest, and the manifest holds the hash of every other file: the same content has the
same version on any machine, and a changed byte is found when the bundle is loaded. Nothing in it is ever executed.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ensemble.manifest import SCHEMA, ManifestError, digest_of, parse, version_of
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import AnyPath, StorageError, as_path, fetch, sha256_file, write_json
from search.space import TrialConfig

MARKER = "manifest.json"
OOF_FILE = "evidence/oof.parquet"
"""What was said of each case by the model that never saw it."""
VERSION_PATTERN = re.compile(r"ens-[0-9a-f]{12}")


class BundleError(ValueError):
    """The folder is no bundle that this release may serve."""


@dataclass(frozen=True)
class Member:
    """A trial kept with a weight."""

    study: str
    """Name of the study that holds it."""
    trial: int
    weight: float
    config: TrialConfig
    fitted: str
    """``folds``: served as the average of its fold models; ``refit``: as one model trained on all folds."""
    files: tuple[Path, ...]
    """Weights of its models, local and checked."""
    licence: str
    """Of the weights that its training started from."""


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
    location: str = ""
    """Folder or URI that it was loaded from; `folder` is this machine's copy where that is remote."""

    @property
    def version(self) -> str:
        """``ens-`` and 12 hex digits."""
        return str(self.manifest["version"])

    @cached_property
    def digest(self) -> str:
        """Hash of the manifest's content, 64 hex digits: `version` is its beginning."""
        return digest_of(self.manifest)

    @property
    def cohort(self) -> str:
        """Hash of the cohort that its trials were trained on."""
        return str(self.manifest["provenance"]["cohort_hash"])

    @property
    def training_median_months(self) -> float:
        """Median bone age of the cases outside the locked test: what a predictor without eyes would say."""
        return float(self.manifest["training_median_months"])

    def file(self, name: str) -> Path:
        """A further file of the bundle, such as ``evidence/oof.parquet``; its hash was checked when it was loaded.

        Raises:
            BundleError: The bundle holds no such file.
        """
        if name not in self.manifest["files"]:
            have = ", ".join(self.manifest["files"]) or "none"
            raise BundleError(f"{self.version} holds no {name}; its further files: {have}.")
        return self.folder / name

    @classmethod
    def load(cls, path: str | Path | AnyPath) -> "Bundle":
        """Open a bundle, local or remote (then copied to this machine once), and check all of it.

        Raises:
            BundleError: It is incomplete, of another schema, changed since it was written, names a file that it may
                not, or holds a link or a file that it does not name.
        """
        try:
            folder = fetch(as_path(path), MARKER)
            _check_no_links(folder)
            manifest = parse((folder / MARKER).read_bytes())
        except ManifestError as error:
            raise BundleError(f"{path}/{MARKER}: {error}") from None
        except (StorageError, OSError) as error:
            raise BundleError(f"{path} is not a bundle: {error}") from error
        recipe = Recipe.from_dict(manifest["recipe"])
        members = tuple(_member(folder, entry) for entry in manifest["members"])
        segmenter = _check_weights(folder / SEGMENTER, recipe.segmenter) if recipe.segmenter else None
        further = [_check_content(folder / name, sha256) for name, sha256 in manifest["files"].items()]
        files = {file for member in members for file in member.files}
        _check_complete(folder, {folder / MARKER, segmenter, *further, *files})
        return cls(folder, manifest, members, recipe, segmenter, str(as_path(path)))


def write_manifest(folder: Path, content: dict[str, Any]) -> str:
    """Finish a bundle whose other files are written.

    Args:
        folder: Holds the files that `content` names.
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


def _member(folder: Path, entry: dict[str, Any]) -> Member:
    return Member(
        entry["study"],
        entry["trial"],
        float(entry["weight"]),
        TrialConfig.from_dict(entry["config"]),
        entry["fitted"],
        tuple(_check_weights(folder / file["file"], file["sha256"]) for file in entry["files"]),
        entry["licence"],
    )


def _check_content(path: Path, sha256: str) -> Path:
    if not path.is_file():
        raise BundleError(f"{path} is missing. Publish the bundle again from its study.")
    if (found := sha256_file(path)) != sha256:
        raise BundleError(
            f"{path} was changed: sha256 must be {sha256[:12]}..., got {found[:12]}... Publish the bundle again."
        )
    return path


def _check_weights(path: Path, sha256: str) -> Path:
    _check_content(path, sha256)
    try:
        with safe_open(path, framework="numpy"):  # reads the header only
            pass
    except SafetensorError as error:
        raise BundleError(f"{path} is no safetensors file ({error}). Publish the bundle again.") from None
    return path


def _check_no_links(folder: Path) -> None:
    """Refuse what lies elsewhere, where it may change, or go, after it was checked; the folder itself may be linked."""
    links = sorted(str(path.relative_to(folder)) for path in _visible(folder) if path.is_symlink())
    if links:
        raise BundleError(
            f"{folder} must hold its files itself, and {links[0]} is a symbolic link. Copy the bundle with what its "
            "links point to: cp -rL."
        )


def _visible(folder: Path) -> Iterator[Path]:
    """What a bundle's folder holds, but for hidden names.

    File managers, NFS and synchronisation write hidden files into any folder, at any time, and a service must start
    beside them. Nothing reads them, and no version that is made of this one takes them over.
    """
    return (path for path in folder.rglob("*") if not path.name.startswith("."))


def _check_complete(folder: Path, known: set[Path | None]) -> None:
    """Refuse a file that nobody vouches for: a later reader might trust it."""
    strangers = sorted(
        str(path.relative_to(folder)) for path in _visible(folder) if not path.is_dir() and path not in known
    )
    if strangers:
        raise BundleError(f"{folder} holds {strangers[0]}, which its manifest does not name. Remove it.")
