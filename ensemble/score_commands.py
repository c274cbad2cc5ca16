"""The command that scores a batch: score."""

import argparse
import os
from typing import Any

from ensemble.arguments import add_bundle
from preprocessing.progress import counting
from preprocessing.sources import add_options, options_of
from preprocessing.storage import as_path


def add(commands: Any) -> None:
    """Add it to a parser's commands."""
    score = commands.add_parser(
        "score", help="answer for every file of a folder or row of a table, into one Parquet file"
    )
    add_bundle(score)
    score.add_argument(
        "inputs",
        help="folder, of which every file that is not hidden gets a row, whatever its name: an answer, or the reason "
        "for none, as of notes and tables; or a CSV or Parquet with a file or URI a row",
    )
    score.add_argument("out", help="the table to write, .parquet; interrupted, the same command goes on")
    score.add_argument("--sex", choices=("male", "female"), default="", help="of every child whose row does not tell")
    score.add_argument("--profile", default="full", help="which members answer (default full)")
    score.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default cpu)")
    score.add_argument("--address", help="Ray cluster to spread the work over (default: this machine)")
    add_options(score)
    score.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> None:
    from ensemble.inputs import read_inputs
    from ensemble.parts import PartsError
    from ensemble.registry import named_bundle
    from preprocessing.environment import prepare as prepare_environment

    out = as_path(options.out)
    if out.suffix != ".parquet":
        raise PartsError(f"The output must be a path or URI that ends in .parquet, got {options.out}.")
    if out.exists():
        raise PartsError(f"{out} is there already. Remove it, or name another output.")
    bundle = named_bundle(options.bundle, options.version)
    inputs = read_inputs(options.inputs, options_of(options), sex=options.sex)
    prepare_environment(own_ray=options.address is None)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is missed and tried again, and then told
    from ensemble.score import score

    counts = score(
        bundle,
        inputs,
        out,
        profile=options.profile,
        device=options.device,
        address=options.address,
        progress=counting("radiographs scored"),
    )
    if inputs.num_masks:
        print(
            f"{inputs.num_masks} files in folders `masks` have the names of pictures, and no row: they are their masks"
        )
    answered = counts.pop("", 0)
    print(f"wrote {out}: {len(inputs)} rows, {answered} with an answer by {bundle.version}")
    for reason, number in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"  {number:>7} x {reason}")
