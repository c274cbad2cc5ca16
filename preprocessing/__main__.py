"""Command line of the first stage: ``python -m preprocessing phantom|prepare``."""

import argparse
import sys

from preprocessing.environment import prepare as prepare_environment
from preprocessing.prepare import PrepareError, prepare, thread_map
from preprocessing.progress import Progress
from preprocessing.recipe import Recipe
from preprocessing.sources import SourceError, read_rsna
from preprocessing.storage import StorageError, as_path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (SourceError, PrepareError, StorageError, ValueError) as error:
        print(f"preprocessing: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("preprocessing: interrupted; nothing was left behind.", file=sys.stderr)
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
    commands = parser.add_subparsers(required=True)

    phantom = commands.add_parser("phantom", help="draw hand radiographs with a known bone age")
    phantom.add_argument("out", help="new folder, written in the RSNA layout")
    phantom.add_argument("--cases", type=int, default=400, help="how many hands (default 400)")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed draws the same hands")
    phantom.add_argument(
        "--variants",
        default="none",
        help="none, all, or names with commas: right hands, turned, cut, framed, 16-bit ... (default none)",
    )
    phantom.add_argument("--wrong", type=int, default=0, help="also draw so many pictures of no hand (default 0)")
    phantom.set_defaults(run=_phantom)

    command = commands.add_parser("prepare", help="standardise a labelled folder into a cohort")
    command.add_argument("source", help="folder in the RSNA layout, local or an fsspec URI")
    command.add_argument("cohort", help="new folder for the cohort, local or an fsspec URI")
    command.add_argument("--size", type=int, default=Recipe.size, help="height and width in pixels (default 96)")
    command.add_argument("--folds", type=int, default=3, help="folds of the cross-validation (default 3)")
    command.add_argument("--test", type=float, default=0.1, help="share locked away for the test (default 0.1)")
    command.add_argument("--seed", type=int, default=0, help="of the split")
    command.add_argument("--address", help="Ray cluster to spread the work over (default: this machine's cores)")
    command.set_defaults(run=_prepare)
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
    source = read_rsna(options.source)
    chunk_map = thread_map
    if options.address:
        prepare_environment(own_ray=False)
        import ray  # only here: a run on this machine needs no Ray

        from preprocessing.cluster import connection, ray_map

        ray.init(**connection(options.address))
        chunk_map = ray_map
    rejected = prepare(
        source,
        options.cohort,
        Recipe(size=options.size),
        num_folds=options.folds,
        test_fraction=options.test,
        seed=options.seed,
        progress=Progress("radiographs prepared", len(source.cases)),
        chunk_map=chunk_map,
    )
    for reason, count in rejected["reason"].value_counts().items():
        print(f"{count} x {reason} (see {options.cohort}/rejected.csv)")


if __name__ == "__main__":
    sys.exit(main())
