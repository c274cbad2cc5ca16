"""Command line of the second stage: ``python -m search run|resume|status|report|dashboard|check-cluster``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from preprocessing import environment
from preprocessing.storage import StorageError
from search.interrupts import heeded, postponed


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a wrong input gives one sentence and exit status 2, an interrupted study status 130."""
    options = _parser().parse_args(arguments)
    try:
        if options.is_begun is None:
            return int(options.run(options))
        with heeded():
            environment.prepare(own_ray=not options.address)
            return int(options.run(options))
    except (StorageError, ValueError, ConnectionError) as error:
        print(f"search: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission: the system's own sentence names the file
        print(f"search: {error}. Mend that. {_how_to_go_on(options)}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"search: interrupted. {_how_to_go_on(options)}".rstrip(), file=sys.stderr)
        return 130


def _how_to_go_on(options: argparse.Namespace) -> str:
    if options.is_begun is None:
        return ""
    if not options.is_begun:
        return "Nothing was begun: run the same command again."
    return f"Go on with: python -m search resume {options.study}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m search", description=__doc__)
    parser.set_defaults(is_begun=None)  # whether there is a study to go on with, of the commands that run one
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="search a space by cross-validated trials")
    run.add_argument("cohort", help="folder written by python -m preprocessing prepare, local or an fsspec URI")
    run.add_argument("study", help="new folder for the study; on a cluster, on storage that every node reaches")
    run.add_argument("--space", default="quick", help="named space or module:function (default quick)")
    run.add_argument("--trials", type=int, default=8, help="configurations in all (default 8)")
    run.add_argument("--pool", type=int, help="good trials that the race keeps (default a quarter of --trials, 2 to 8)")
    run.add_argument("--partitions", type=int, default=1, help="2: train the pool again on other folds in the end")
    run.add_argument(
        "--race",
        default="auto",
        help="rule over folds: matched, forgiving, paired, none, or module:function (default auto)",
    )
    run.add_argument("--screen", choices=("on", "off"), default="on", help="short trainings first, stops inside fold 0")
    run.add_argument("--objective", default="mae", help="mae (default), or diversity: less what a trial adds to others")
    run.add_argument("--max-parameters", type=_positive(float), help="train nothing larger; so for latency and memory:")
    run.add_argument("--max-latency-ms", type=_positive(float), help="of one radiograph on the trial's device")
    run.add_argument("--max-memory-mb", type=_positive(float), help="of one radiograph, weights included")
    run.add_argument("--warm-start", action="append", default=[], metavar="STUDY", help="earlier study; repeatable")
    run.add_argument("--seed", type=int, default=0, help="of configurations and training")
    run.add_argument("--deterministic", action="store_true", help="the same weights to the bit; slower")
    _add_compute(run)
    run.set_defaults(run=_run, is_begun=False)

    resume = commands.add_parser("resume", help="go on with a study after any kind of stop")
    resume.add_argument("study")
    resume.add_argument("--cohort", help="where the study's cohort is now, when it was moved")
    resume.add_argument("--partitions", type=int, help="2: train the pool again, though the study was begun without")
    _add_compute(resume)
    resume.set_defaults(run=_resume, is_begun=True)

    dashboard = commands.add_parser("dashboard", help="show the study in a browser with optuna-dashboard")
    dashboard.add_argument("study")
    dashboard.add_argument("--port", type=int, default=8080, help="on 127.0.0.1 alone (default 8080)")
    dashboard.add_argument("--storage", help="URL of the study's database with its password, where it needs one")
    dashboard.set_defaults(run=_dashboard)

    status = commands.add_parser("status", help="one line a trial: state, folds done, error")
    status.add_argument("study")
    status.set_defaults(run=_status)

    report = commands.add_parser("report", help="one page and CSV tables about a study, also while it runs")
    report.add_argument("study")
    report.add_argument("--out", help="folder to write to (default STUDY/report)")
    report.add_argument("--cohort", help="where the study's cohort is now, for pictures, when it was moved")
    report.add_argument("--storage", help="URL of the study's database with its password, where it needs one")
    report.set_defaults(run=_report)

    check = commands.add_parser("check-cluster", help="find the traps in a cluster file; what it runs and costs")
    check.add_argument("file", type=Path, help="of ray up (cluster.yaml), or a RayJob, RayService or RayCluster")
    check.add_argument("--gpus-per-trial", type=_gpu_share, help="as for run (default 1 where a pool has GPUs)")
    check.add_argument("--prices", type=Path, help="table in the form of search/cluster/prices.csv, the default")
    check.set_defaults(run=_check_cluster)
    return parser


def _positive(kind: type) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not kind(text) > 0:
            raise argparse.ArgumentTypeError(f"it must be above 0, got {text}")
        return kind(text)

    parse.__name__ = kind.__name__  # argparse names it when the text is no number at all
    return parse


def _gpu_share(text: str) -> float:
    if not float(text) >= 0:
        raise argparse.ArgumentTypeError(f"it must be 0 or more, got {text}")
    return float(text)


def _add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", help="URL of a database for Optuna's record (default: a journal in the study)")
    parser.add_argument(
        "--weights",
        metavar="FOLDER",
        help="instead of timm's hub: files named by model (resnet50.safetensors, .pth or .pt), kept with the study",
    )
    parser.add_argument(
        "--hours", type=_positive(float), help="begin no trial that this time would cut off; resume goes on"
    )
    parser.add_argument("--concurrent", type=_positive(int), help="trials at a time (default: fill the GPUs or CPUs)")
    parser.add_argument("--gpus-per-trial", type=_gpu_share, help="fractions share a GPU (default 1 where one is)")
    parser.add_argument("--address", help="Ray cluster to run on (default: this machine)")


def _run(options: argparse.Namespace) -> int:
    with postponed():  # an exception inside of an import may be lost
        from search.limits import Limits
        from search.study import create  # late: torch and Ray take seconds that --help does not need
        from search.warm_start import read_warm_start

    options.study = create(
        options.cohort,
        options.study,
        space=options.space,
        num_trials=options.trials,
        pool_size=min(8, max(2, options.trials // 4)) if options.pool is None else options.pool,
        seed=options.seed,
        race=options.race,
        screen=options.screen == "on",
        objective=options.objective,
        limits=Limits(
            parameters=options.max_parameters,
            latency_ms=options.max_latency_ms,
            memory_mb=options.max_memory_mb,
        ),
        warm_start=options.warm_start,
        storage=options.storage or "",
        partitions=options.partitions,
        deterministic=options.deterministic,
        weights=options.weights or "",
    )
    if options.warm_start:
        print(f"search: {read_warm_start(options.study)}", file=sys.stderr)
    options.is_begun = True
    return _resume(options)


def _resume(options: argparse.Namespace) -> int:
    with postponed():
        from search.study import run
        from search.tuning import Compute

    compute = Compute(
        address=options.address,
        concurrent=options.concurrent,
        gpus_per_trial=options.gpus_per_trial,
        hours=options.hours,
        cohort=options.cohort,
        storage=options.storage,
    )
    ending = run(options.study, compute, partitions=options.partitions, weights=options.weights)
    if ending != "complete":
        print(f"search: {ending}. Go on with: python -m search resume {options.study}", file=sys.stderr)
    return 130 if ending == "interrupted" else 0


def _dashboard(options: argparse.Namespace) -> int:
    from preprocessing.storage import as_path
    from search.journal import open_to_look
    from search.trial import read_study

    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise ValueError("The dashboard is not installed. Install it with: pip install 'carpal[dashboard]'") from None
    study = as_path(options.study)
    storage = open_to_look(study, options.storage or read_study(study)["storage"])
    print(f"search: http://127.0.0.1:{options.port}/dashboard (Ctrl-C ends it)", file=sys.stderr)
    run_server(storage, host="127.0.0.1", port=options.port)
    return 0


def _status(options: argparse.Namespace) -> int:
    from preprocessing.storage import as_path
    from search.trial import all_outcomes, read_fold, read_study, trial_folder, trial_numbers

    study = as_path(options.study)
    num_folds = read_study(study)["num_folds"]
    outcomes = {outcome["number"]: outcome for outcome in all_outcomes(study)}
    for number in trial_numbers(study):
        folder, outcome = trial_folder(study, number), outcomes.get(number)
        if outcome is None:  # resume draws it again, unless the trial has ended
            remedy = "Restore it from a backup." if (folder / "outcome.json").exists() else "resume writes it again."
            print(f"{number:4d}  unknown   {folder / 'config.json'} is missing. {remedy}")
            continue
        folds = [read_fold(folder, i) for i in range(num_folds)]  # assistants leave gaps before their folds
        errors = " ".join(f"{record['mae_months']:6.2f}" if record else f"{'-':>6s}" for record in folds)
        print(f"{number:4d}  {outcome['state']:8s}  {errors:24s} {outcome.get('reason', '')}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from preprocessing.storage import as_path
    from search.report import report

    out = as_path(options.out) if options.out else as_path(options.study) / "report"
    made = report(options.study, cohort=options.cohort, storage=options.storage or "")
    print(f"written: {made.write(out)}")
    return 0


def _check_cluster(options: argparse.Namespace) -> int:
    from search.cluster.check import PRICES, check_cluster

    check = check_cluster(options.file, prices=options.prices or PRICES, gpus_per_trial=options.gpus_per_trial)
    print("\n".join(check.lines))
    for finding in check.findings:
        print(f"{'FAULT' if finding.is_fault else 'note '} {finding.code}: {finding.sentence}")
    print(f"{options.file}: {check.num_faults or 'no'} fault{'s' if check.num_faults != 1 else ''}")
    return 1 if check.num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
