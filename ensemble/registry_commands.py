"""Commands that look at a registry and change it: list, show, card, rollback, remove."""

import argparse
import json
import sys
from typing import Any

from ensemble.arguments import add_bundle
from preprocessing.storage import as_path, write_atomic


def add(commands: Any) -> None:
    """Add them to a parser's commands."""
    listing = commands.add_parser("list", help="the bundles of a registry, and what points to them")
    _add_registry(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON array and nothing else")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="check one bundle and say what it is")
    add_bundle(show)
    show.add_argument("--json", action="store_true", help="print its manifest and nothing else")
    show.set_defaults(run=_show)

    card = commands.add_parser("card", help="the model card of a bundle, as Markdown")
    add_bundle(card)
    card.add_argument("--evaluation", metavar="JSON", help="report.json of python -m ensemble evaluate --out")
    card.add_argument("--out", help="file to write (default: print it)")
    card.set_defaults(run=_card)

    rollback = commands.add_parser("rollback", help="let an alias point again to where it pointed before")
    _add_registry(rollback)
    rollback.add_argument("--alias", default="champion", help="(default champion)")
    rollback.set_defaults(run=_rollback)

    remove = commands.add_parser("remove", help="take a bundle away that no alias points to")
    _add_registry(remove)
    remove.add_argument("version", help="such as ens-0123456789ab")
    remove.set_defaults(run=_remove)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", help="folder with published bundles, local or an fsspec URI")


def _list(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry, RegistryError

    if not as_path(options.registry).exists():
        raise RegistryError(f"{options.registry} does not exist. Name a registry, or build one.")
    registry = Registry(options.registry)
    rows = registry.versions()
    for fault in [*registry.faults(), *(row["fault"] for row in rows if row["fault"])]:
        print(f"ensemble: {fault}", file=sys.stderr)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("version           published                  members  aliases")
    for row in rows:
        members, aliases = "broken" if row["fault"] else row["members"], ", ".join(row["aliases"]) or "-"
        print(f"{row['version']:<17} {row['published'] or 'not recorded':<26} {members:>7}  {aliases}")


def _show(options: argparse.Namespace) -> None:
    from ensemble.registry import named_bundle

    bundle = named_bundle(options.bundle, options.version)
    if options.json:
        print(json.dumps(bundle.manifest, indent=1))
        return
    manifest = bundle.manifest
    print(f"{bundle.version}: every file is what its manifest says")
    print(f"  cohort       {manifest['provenance']['cohort_hash']}")
    for study in manifest["provenance"]["studies"]:
        print(f"  study        {study['name']} ({study['study_hash'][:12]})")
    print(f"  recipe       {bundle.recipe.hash[:12]}, {bundle.recipe.size} pixels, {', '.join(bundle.recipe.views)}")
    print(f"  combination  {manifest['combination']['rule']}, test-time views: {', '.join(manifest['views'])}")
    print(f"  calibration  {'fitted' if manifest['calibration'] else 'none'}")
    print("  member        weight  models           licence of the weights it started from")
    for member in bundle.members:
        models = f"{len(member.files)} folds" if member.fitted == "folds" else "one, on all folds"
        name = f"{member.study} {member.trial}" if len(manifest["provenance"]["studies"]) > 1 else str(member.trial)
        weights = f"{member.config.backbone}: {member.licence}"
        if member.weight:
            print(f"    {name:<10} {member.weight:>7.3f}  {models:<16} {weights}")
        else:
            print(f"  student      {member.study} {member.trial}, for the profile fast alone: {models}, {weights}")
    for name in manifest["files"]:
        print(f"  file         {name}")


def _card(options: argparse.Namespace) -> None:
    from ensemble.card import read_evaluation, render
    from ensemble.registry import named_bundle

    bundle = named_bundle(options.bundle, options.version)
    evaluation = read_evaluation(as_path(options.evaluation), bundle.version) if options.evaluation else None
    text = render(bundle.manifest, evaluation)
    if options.out:
        write_atomic(as_path(options.out), text.encode())
        print(f"wrote {options.out}")
    else:
        print(text, end="")


def _rollback(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry

    now, before = Registry(options.registry).rollback(options.alias)
    print(f"{options.alias} is now {now}, was {before}")


def _remove(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry

    Registry(options.registry).remove(options.version)
    print(f"removed {options.version}")
