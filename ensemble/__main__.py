"""Command line of the third stage: ``python -m ensemble`` and a command; ``--help`` lists them."""

import argparse
import sys

from ensemble import (
    build_commands,
    explain_commands,
    measure_commands,
    registry_commands,
    score_commands,
    site_commands,
    stress_commands,
)
from ensemble.arguments import add_bundle
from preprocessing.progress import counting
from preprocessing.storage import as_path, write_atomic


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:  # every error of ours is one
        print(f"ensemble: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission: the system's own sentence names the file
        print(f"ensemble: {error}. Mend that, then run it again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ensemble: interrupted; nothing was left half written.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ensemble", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build_commands.add(commands)

    report = commands.add_parser("report", help="write one HTML page about the whole run")
    add_bundle(report)
    report.add_argument("--study", required=True, help="the study it was built from")
    report.add_argument("--cohort", required=True, help="the cohort that the study used")
    report.add_argument("--answer", help="JSON file written by python -m serve.ask --out")
    report.add_argument("--out", required=True, help="the page to write")
    report.set_defaults(run=_report)

    measure_commands.add(commands)
    score_commands.add(commands)
    stress_commands.add(commands)
    explain_commands.add(commands)
    site_commands.add(commands)
    registry_commands.add(commands)
    return parser


def _report(options: argparse.Namespace) -> None:
    from ensemble.registry import named_bundle
    from ensemble.report import render

    page = render(
        named_bundle(options.bundle, options.version),
        study=options.study,
        cohort=options.cohort,
        answer=options.answer,
        progress=counting("radiographs predicted"),
    )
    out = as_path(options.out)
    write_atomic(out, page.encode())
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
