"""The manifest of a bundle: which entries it has and what each may say; anything else is refused.

    schema, version            of the manifest; the version is a hash of everything else in it
    members                    study, trial, weight, config, fitted (folds or refit), files with their sha256, licence
    combination                rule and trim: how the members become one distribution
    profiles                   full, and fast where one was found: the weight of each member in it; fast also has a
                               calibration of its own, of the same form
    views                      pictures that each member sees of one radiograph at test time
    recipe, recipe_hash        how a file becomes pixels
    calibration                intervals, bias, site and sex, of profile full; null where none was fitted
    training_median_months     what a predictor without eyes would say
    evidence                   small figures
    files                      sha256 of every further file, by name
    licences                   licence of each set of pretrained weights, by name
    provenance                 studies, cohort, trials with seed and folds, packages

An unknown entry is refused, not skipped: the release that wrote it may mean something that changes the answer.
"""

import json
import math
import re
from collections.abc import Collection
from typing import Any

from ensemble import calibration
from ensemble.views import VIEWS
from preprocessing.recipe import Recipe
from preprocessing.storage import canonical_hash
from search.space import TrialConfig

SCHEMA = "carpal-bundle-3"
RULES = ("mean", "trimmed_mean", "weighted_median")
"""How members may be combined."""
PROFILES = ("full", "fast")
FITTED = {"folds": r"fold_[0-9]{1,4}", "refit": "refit"}
"""What a member's files are, and how they are called."""
_ENTRIES = {
    "schema", "version", "members", "combination", "profiles", "views", "recipe", "recipe_hash", "calibration",
    "training_median_months", "evidence", "files", "licences", "provenance",
}  # fmt: skip
_MEMBER = {"study", "trial", "weight", "config", "fitted", "files", "licence"}
_PROVENANCE = {"studies", "cohort_hash", "trials", "packages"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FURTHER_FILE = re.compile(r"evidence/[a-z0-9_]{1,64}\.(parquet|json|csv|png|svg)|card\.md|report\.html")
_MAX_BYTES = 64 << 20


class ManifestError(ValueError):
    """The manifest says something that this release does not know, or cannot be."""


def digest_of(manifest: dict[str, Any]) -> str:
    """Hash of a manifest's content, and so of all that it names by hash; its own ``version`` entry does not count."""
    return canonical_hash({key: value for key, value in manifest.items() if key != "version"})


def version_of(manifest: dict[str, Any]) -> str:
    """The version that a manifest's content has: the beginning of `digest_of`."""
    return "ens-" + digest_of(manifest)[:12]


def parse(content: bytes) -> dict[str, Any]:
    """Read a manifest and check every entry but the files themselves.

    Raises:
        ManifestError: It is no JSON, of another schema, changed since it was written, incomplete, or says what this
            release does not know.
    """
    if len(content) > _MAX_BYTES:
        raise ManifestError(f"must hold at most {_MAX_BYTES >> 20} MiB, got {len(content) >> 20}.")
    try:
        manifest = json.loads(content, parse_constant=_no_number, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"is not valid JSON ({error}). Publish the bundle again.") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise ManifestError(f"must have the schema {SCHEMA}, got {schema!r}. Use the release that wrote it.")
    if version_of(manifest) != manifest.get("version"):
        raise ManifestError("was changed after it was written: its content is not what its version names.")
    _only(manifest, _ENTRIES, "the manifest")
    try:
        _check(manifest)
    except ManifestError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ManifestError(f"is incomplete or wrong ({type(error).__name__}: {error}).") from None
    return manifest


def _check(manifest: dict[str, Any]) -> None:
    members, recipe = manifest["members"], Recipe.from_dict(manifest["recipe"])
    if manifest["recipe_hash"] != recipe.hash:
        raise ManifestError("names another recipe than the one it holds.")
    if not members:
        raise ManifestError("must have 1 member or more, got none.")
    for member in members:
        _check_member(member, recipe)
    if len({(member["study"], member["trial"]) for member in members}) != len(members):
        raise ManifestError("names a trial twice. Publish it again from its study.")
    _check_weights([member["weight"] for member in members], "weights")
    _check_combination(manifest["combination"])
    _check_profiles(manifest["profiles"], [member["weight"] for member in members])
    views = manifest["views"]
    if not views or len(set(views)) != len(views) or not set(views) <= set(VIEWS):
        raise ManifestError(f"views must be some of {', '.join(VIEWS)}, each once, got {views}.")
    calibration.parse(manifest["calibration"])
    if not math.isfinite(float(manifest["training_median_months"])):
        raise ManifestError(f"training_median_months must be a number, got {manifest['training_median_months']}.")
    if not isinstance(manifest["evidence"], dict):
        raise ManifestError("evidence must be an object of figures.")
    for name, sha256 in manifest["files"].items():
        if not _FURTHER_FILE.fullmatch(name):
            raise ManifestError(f"a further file must be card.md, report.html or evidence/NAME, got {name!r}.")
        _check_digest(sha256, name)
    if not all(isinstance(licence, str) for licence in manifest["licences"].values()):
        raise ManifestError("licences must name one licence for each set of weights.")
    _check_provenance(manifest["provenance"])


def _check_member(member: dict[str, Any], recipe: Recipe) -> None:
    _only(member, _MEMBER, "a member")
    trial, config = member["trial"], TrialConfig.from_dict(member["config"])
    if type(trial) is not int or not 0 <= trial < 10**9 or not isinstance(member["study"], str):
        raise ManifestError(f"a member must name its study and its trial's number, got {member['study']!r}, {trial!r}.")
    if not isinstance(member["licence"], str):
        raise ManifestError(f"member {trial} must state the licence of the weights it started from.")
    if config.view not in recipe.views:
        raise ManifestError(f"member {trial} sees the view {config.view!r}, which the recipe does not make.")
    if member["fitted"] not in FITTED:
        raise ManifestError(f"member {trial} must be fitted on {' or '.join(FITTED)}, got {member['fitted']!r}.")
    names = [file["file"] for file in member["files"]]
    if not names:
        raise ManifestError(f"member {trial} must have 1 model or more, got none.")
    wanted = re.compile(rf"members/[0-9]{{1,4}}-{trial:04d}/{FITTED[member['fitted']]}\.safetensors")
    for file in member["files"]:
        _only(file, {"file", "sha256"}, f"a file of member {trial}")
        # before the disk is touched: this also shuts out "..", "/" and pickles
        if not isinstance(file["file"], str) or not wanted.fullmatch(file["file"]):
            model = "refit" if member["fitted"] == "refit" else "fold_K"
            raise ManifestError(
                f"a file of member {trial} must be named members/STUDY-{trial:04d}/{model}.safetensors, "
                f"got {file['file']!r}."
            )
        _check_digest(file["sha256"], file["file"])
    if len(set(names)) != len(names):
        raise ManifestError(f"member {trial} names a file twice. Publish it again from its study.")


def _check_weights(weights: list[Any], what: str) -> None:
    """Shares of one; a member without any in the full profile serves another one."""
    are_shares = all(type(weight) in (int, float) and weight >= 0 for weight in weights)
    if not are_shares or not math.isclose(math.fsum(weights), 1, abs_tol=1e-9):
        raise ManifestError(f"{what} must be 0 or more and sum to 1, got {weights}.")


def _check_combination(combination: dict[str, Any]) -> None:
    _only(combination, {"rule", "trim"}, "combination")
    if combination["rule"] not in RULES or not 0 <= float(combination["trim"]) < 0.5:
        raise ManifestError(
            f"combination must have a rule of {', '.join(RULES)} and a trim of 0 or more, below 0.5, got {combination}."
        )


def _check_profiles(profiles: dict[str, Any], weights: list[float]) -> None:
    _only(profiles, set(PROFILES), "profiles", required={"full"})
    for name, profile in profiles.items():
        own = {"calibration"} if name != "full" else set()
        _only(profile, {"weights", "members", "evidence"} | own, f"profile {name}", required={"weights"})
        calibration.parse(profile.get("calibration"))
        if len(profile["weights"]) != len(weights):
            raise ManifestError(f"profile {name} must weigh {len(weights)} members, got {len(profile['weights'])}.")
        _check_weights(profile["weights"], f"weights of profile {name}")
    for place in range(len(weights)):
        if not any(profile["weights"][place] for profile in profiles.values()):
            raise ManifestError(f"member {place + 1} of {len(weights)} must have a weight above 0 in a profile.")
    if profiles["full"]["weights"] != weights:
        raise ManifestError("profile full must have the members' own weights.")


def _check_provenance(provenance: dict[str, Any]) -> None:
    _only(provenance, _PROVENANCE, "provenance")
    _check_digest(provenance["cohort_hash"], "the cohort")
    if not provenance["studies"]:
        raise ManifestError("provenance must name 1 study or more, got none.")
    for study in provenance["studies"]:
        _only(study, {"name", "study_hash"}, "a study of the provenance")
        _check_digest(study["study_hash"], f"study {study['name']}")
    for trial in provenance["trials"]:
        _only(trial, {"study", "trial", "seed", "config_hash", "folds"}, "a trial of the provenance")


def _only(value: Any, known: Collection[str], what: str, *, required: Collection[str] | None = None) -> None:
    """Refuse an object with other keys than `known`, or without one of `required`, by default all of them."""
    if not isinstance(value, dict):
        raise ManifestError(f"{what} must be an object with {', '.join(sorted(known))}, got {type(value).__name__}.")
    if unknown := sorted(set(value) - set(known)):
        raise ManifestError(
            f"{what} holds {unknown[0]!r}, which this release does not know. Use the one that wrote it."
        )
    if missing := sorted(set(known if required is None else required) - set(value)):
        raise ManifestError(f"{what} is incomplete: {', '.join(missing)} is missing. Publish the bundle again.")


def _check_digest(digest: Any, what: str) -> None:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ManifestError(f"{what} must have a sha256 of 64 hex digits, got {digest!r}.")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may choose differently between two entries of one name."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an entry stands twice")
    return found
