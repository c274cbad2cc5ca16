"""Command line of the first stage: ``python -m preprocessing phantom|prepare|inspect|...``."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from preprocessing.environment import prepare as prepare_environment
from preprocessing.prepare import ChunkMap, prepare, thread_map
from preprocessing.progress import Progress
from preprocessing.recipe import SHIPPED, VIEWS, Recipe
from preprocessing.sources import SourceError, add_options, options_of, read_source
from preprocessing.staging import PrepareError
from preprocessing.storage import StorageError, as_path, read_json, sha256_file, write_atomic


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (SourceError, PrepareError, StorageError, ValueError) as error:
        print(f"preprocessing: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"preprocessing: interrupted; {options.after_interrupt}", file=sys.stderr)
        return 130
    except ConnectionError as error:
        print(f"preprocessing: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission: the system's own sentence names the file
        print(
            f"preprocessing: {error}. Free space or choose another folder, then run it again.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m preprocessing", description=__doc__)
    parser.set_defaults(after_interrupt="nothing was left behind.")
    commands = parser.add_subparsers(required=True)

    phantom = commands.add_parser("phantom", help="draw hand radiographs with a known bone age")
    phantom.add_argument("out", help="new folder, written in the RSNA layout")
    phantom.add_argument("--cases", type=int, default=400, help="how many hands (default 400)")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed draws the same hands")
    phantom.add_argument(
        "--variants",
        default="none",
        help="none, all, or names with commas: right hands, turned, cut, framed, 16-bit ...; atlas:1 draws plates of "
        "an atlas alone, NAME:SHARE any share of pictures (default none)",
    )
    phantom.add_argument("--wrong", type=int, default=0, help="also draw so many pictures of no hand (default 0)")
    phantom.set_defaults(run=_phantom)

    command = commands.add_parser("prepare", help="standardise a labelled folder into a cohort")
    command.add_argument("source", help="labelled pictures: a folder or a table, local or an fsspec URI")
    command.add_argument("cohort", help="new folder for the cohort, local or an fsspec URI")
    command.add_argument("--size", type=int, help="height and width in pixels (default 96)")
    command.add_argument("--views", help=f"pictures of each radiograph, with commas: {', '.join(VIEWS)} (default crop)")
    command.add_argument("--recipe", help="JSON file with settings that differ from the standard recipe")
    command.add_argument(
        "--segmenter", help="weights of train-segmenter that find the hand (default: the shipped ones)"
    )
    command.add_argument("--folds", type=int, default=3, help="folds of the cross-validation (default 3)")
    command.add_argument("--test", type=float, default=0.1, help="share locked away for the test (default 0.1)")
    command.add_argument("--seed", type=int, default=0, help="of the split")
    command.add_argument("--workers", type=int, help="threads on this machine (default: one a core)")
    command.add_argument("--address", help="Ray cluster to spread the work over (default: this machine's cores)")
    add_options(command)
    kept = "what is finished is kept. Go on with the same command."
    command.set_defaults(run=_prepare, after_interrupt=kept)

    sheet = commands.add_parser("augment-sheet", help="draw what each augmentation strength does to real cases")
    sheet.add_argument("source", help="a cohort, or labelled pictures as for prepare; local or an fsspec URI")
    sheet.add_argument("out", help="PNG file to write")
    sheet.add_argument("--cases", type=int, default=12, help="rows of the sheet (default 12)")
    sheet.add_argument("--size", type=int, default=192, help="pixels a side, without a cohort (default 192)")
    sheet.add_argument("--seed", type=int, default=0, help="of the changes")
    add_options(sheet)
    sheet.set_defaults(run=_augment_sheet)

    hands = commands.add_parser("find-hands", help="write the hand's mask and pose of every picture in a folder")
    hands.add_argument("images", help="folder of pictures, searched with its sub-folders")
    hands.add_argument("out", help="new folder: masks/, poses.json, scores.csv and contact sheets")
    hands.add_argument("--segmenter", help="weights of train-segmenter (default: the shipped ones)")
    hands.set_defaults(run=_find_hands)

    look = commands.add_parser("inspect", help="show what happens to a file, or what a cohort holds and what looks odd")
    look.add_argument("target", metavar="file_or_cohort", help="a radiograph, or a cohort; local or an fsspec URI")
    look.add_argument("out", help="HTML page or PNG file to write; a refused file gets one too, and exit status 2")
    look.add_argument("--cohort", help="follow the recipe of this cohort (default: the standard one with all views)")
    look.add_argument("--segmenter", help="weights of train-segmenter to look with (default: the shipped ones)")
    look.set_defaults(run=_inspect)

    train = commands.add_parser("train-segmenter", help="learn to find hands from pictures and their masks")
    train.add_argument("images", help="folder of pictures, bone bright; a poses.json beside it teaches alignment")
    train.add_argument("masks", help="folder of masks with the same names: 0 is background (in JPEG, below 128)")
    train.add_argument("out", help="file for the weights (.safetensors)")
    train.add_argument("--adapt", help="folder of unlabelled radiographs to go on learning from by self-training")
    train.add_argument("--start", help="weights to begin from, or 'shipped' (default: random ones)")
    train.add_argument("--steps", type=int, default=2000, help="of 24 pictures each (default 2000)")
    train.add_argument("--seed", type=int, default=0, help="of weights, samples and the part held out")
    train.set_defaults(run=_train_segmenter)
    return parser


def _phantom(options: argparse.Namespace) -> None:
    from preprocessing.drawing.variants import VARIANTS
    from preprocessing.phantom import write_phantoms

    named = {"none": (), "all": tuple(VARIANTS)}
    progress = Progress("phantoms drawn", options.cases)
    write_phantoms(
        as_path(options.out),
        num_cases=options.cases,
        seed=options.seed,
        variants=named.get(options.variants, tuple(options.variants.split(","))),
        num_wrong=options.wrong,
        progress=lambda done, _: progress(done),
    )


def _prepare(options: argparse.Namespace) -> None:
    source = read_source(options.source, options_of(options))
    if options.workers is not None and options.workers < 1:
        raise PrepareError(f"--workers must be 1 or more, got {options.workers}.")
    chunk_map: ChunkMap = partial(thread_map, num_workers=options.workers)
    if options.address:
        prepare_environment(own_ray=False)
        import ray  # only here: a run on this machine needs no Ray

        from preprocessing.cluster import connection, ray_map

        ray.init(**connection(options.address))
        chunk_map = ray_map
    recipe, weights = _recipe(options)
    rejected = prepare(
        source,
        options.cohort,
        recipe,
        weights=weights,
        num_folds=options.folds,
        test_fraction=options.test,
        seed=options.seed,
        progress=Progress("radiographs prepared", len(source.cases)),
        chunk_map=chunk_map,
    )
    for reason, count in rejected["reason"].value_counts().items():
        print(f"{count} x {reason} (see {options.cohort}/rejected.csv)")
    for reason, count in source.notes["reason"].value_counts().items():
        print(f"{count} x {reason}, used all the same (see {options.cohort}/notes.csv)")


def _recipe(options: argparse.Namespace) -> tuple[Recipe, Path | None]:
    """The recipe asked for, and its segmenter's file where it is not the shipped one."""
    settings: dict[str, Any] = read_json(as_path(options.recipe)) if options.recipe else {}
    if not isinstance(settings, dict):
        raise ValueError(f"{options.recipe} must hold one JSON object of settings, got {type(settings).__name__}.")
    if options.size is not None:
        settings["size"] = options.size
    if options.views is not None:
        settings["views"] = tuple(options.views.split(","))
    weights = Path(options.segmenter).absolute() if options.segmenter else None
    if weights is not None:
        if not weights.is_file():
            raise StorageError(f"{weights} is no file. Name weights that train-segmenter wrote.")
        settings["segmenter"] = sha256_file(weights)
    return Recipe.standard(**settings), weights


def _augment_sheet(options: argparse.Namespace) -> None:
    import cv2  # only here, as are the augmentation's own slow imports

    from preprocessing.augment_sheet import contact_sheet, sample

    images_NHW, labels = sample(options.source, options.cases, options.size, options_of(options))
    sheet_HW = contact_sheet(images_NHW, labels, options.seed)
    write_atomic(as_path(options.out), cv2.imencode(".png", sheet_HW)[1].tobytes())
    print(f"{len(labels)} cases drawn: {options.out}")


def _find_hands(options: argparse.Namespace) -> None:
    from preprocessing.masks import write_masks  # only here: PyTorch takes seconds to load

    weights = Path(options.segmenter).absolute() if options.segmenter else SHIPPED
    found, failed = write_masks(
        Path(options.images).absolute(),
        Path(options.out).absolute(),
        weights,
        progress=lambda total: Progress("pictures searched", total),
    )
    print(f"{found} hands found, {failed} pictures without: {options.out}/scores.csv says why")


def _inspect(options: argparse.Namespace) -> None:
    from preprocessing.inspection import inspect  # only here: drawing and PyTorch take seconds to load

    weights = Path(options.segmenter).absolute() if options.segmenter else None
    refusal = inspect(options.target, options.out, recipe_of=options.cohort, weights=weights)
    print(f"written: {options.out}")
    if refusal is not None:
        raise refusal


def _train_segmenter(options: argparse.Namespace) -> None:
    from preprocessing.segmenter_training import Training, learn  # only here: PyTorch takes seconds to load

    start = SHIPPED if options.start == "shipped" else options.start and Path(options.start).absolute()
    learn(
        Path(options.images).absolute(),
        Path(options.masks).absolute(),
        Path(options.out).absolute(),
        Training(steps=options.steps, seed=options.seed),
        start=start,
        adapt_to=options.adapt and Path(options.adapt).absolute(),
        progress=lambda text: Progress(text, options.steps),
    )


if __name__ == "__main__":
    sys.exit(main())
