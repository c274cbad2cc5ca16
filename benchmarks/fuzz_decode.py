"""Decode mutated files of every format: none may crash, hang, take much memory or raise anything but a refusal.

    python -m benchmarks.fuzz_decode --cases 100000

Each worker is a process of its own, so that a crash of a codec is caught, counted and passed over. A case is made
from its number and the seed alone: `--first N --cases 1 --workers 1` runs case N again. Peak memory is read
as Linux tells it. The last line is JSON.
"""

import argparse
import collections
import json
import multiprocessing as mp
import resource
import sys
import time
from multiprocessing.connection import Connection, wait

import cv2
import numpy as np

from benchmarks.mutation import mutated, seeds
from preprocessing.radiograph import RadiographError, decode

REPORT_EVERY = 200


def work(pipe: Connection, seed: int, first: int, stop: int, step: int, only: str) -> None:
    """Decode the cases `first`, `first + step` ... and tell the parent before each one which it is."""
    cv2.setNumThreads(1)
    corpus = {name: data for name, data in seeds().items() if only in name}
    for data in corpus.values():
        decode(data)  # whatever is loaded on first use counts as base, not as the first case's memory
    base = _peak_mib()
    counts: collections.Counter[str] = collections.Counter()
    slowest, last_peak, largest = 0.0, base, 0.0
    for case in range(first, stop, step):
        data = mutated(corpus, seed, case)
        pipe.send(("case", case))
        start = time.perf_counter()
        try:
            image = decode(data)
            outcome = "read" if image.ndim == 2 and image.dtype in (np.uint8, np.uint16) else "failed: wrong array"
        except RadiographError as error:
            outcome = error.code
        except BaseException as error:  # anything else is a finding, and the run goes on
            outcome = f"failed: {type(error).__name__}"
        slowest = max(slowest, time.perf_counter() - start)
        peak = _peak_mib()
        largest, last_peak = max(largest, peak - last_peak), peak
        counts[outcome] += 1
        if outcome.startswith("failed"):
            pipe.send(("finding", (case, outcome)))
        if case % REPORT_EVERY < step or case + step >= stop:
            pipe.send(("counts", (dict(counts), slowest, largest, peak - base)))
            counts.clear()
    pipe.send(("done", None))


def run(cases: int, *, first: int, workers: int, seed: int, only: str, time_limit_s: float) -> dict[str, object]:
    """Run all cases and gather what happened."""
    context = mp.get_context("spawn")
    counts: collections.Counter[str] = collections.Counter()
    findings: list[tuple[int, str]] = []
    slowest = largest = growth = 0.0
    stop = first + cases
    running: dict[Connection, list] = {}

    def start(begin: int) -> None:
        if begin >= stop:
            return
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, seed, begin, stop, workers, only), daemon=True)
        process.start()
        theirs.close()
        running[ours] = [process, begin - workers, time.monotonic() + 60]  # the imports get a minute

    for worker in range(workers):
        start(first + worker)
    while running:
        for pipe in wait(list(running), timeout=0.5):
            assert isinstance(pipe, Connection)
            process = running[pipe][0]
            try:
                kind, value = pipe.recv()
            except EOFError:
                process.join()
                findings.append((running[pipe][1], f"failed: process ended with {process.exitcode}"))
                begin = running.pop(pipe)[1] + workers
                if begin >= first + workers:  # before its first case it would end the same way again
                    start(begin)
                continue
            running[pipe][2] = time.monotonic() + time_limit_s
            if kind == "case":
                running[pipe][1] = value
            elif kind == "finding":
                findings.append(value)
            elif kind == "counts":
                counts.update(value[0])
                slowest, largest, growth = max(slowest, value[1]), max(largest, value[2]), max(growth, value[3])
            else:
                process.join()
                del running[pipe]
        for pipe, (process, case, deadline) in list(running.items()):
            if time.monotonic() > deadline:
                process.kill()
                process.join()
                findings.append((case, f"failed: longer than {time_limit_s:g} s"))
                del running[pipe]
                start(case + workers)
    return {
        "cases": cases,
        "seed": seed,
        "outcomes": dict(counts.most_common()),
        "slowest_s": round(slowest, 3),
        "largest_case_mib": round(largest, 1),
        "growth_mib": round(growth, 1),
        "findings": sorted(findings)[:50],
        "num_findings": len(findings),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_decode", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="mutate only the files with this in their name, as dicom or png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-limit-s", type=float, default=10.0, help="for one case")
    parser.add_argument("--memory-limit-mib", type=float, default=1024.0, help="growth of a worker over all its cases")
    args = parser.parse_args()
    begin = time.monotonic()
    result = run(
        args.cases,
        first=args.first,
        workers=args.workers,
        seed=args.seed,
        only=args.only,
        time_limit_s=args.time_limit_s,
    )
    passed = not result["num_findings"] and float(str(result["growth_mib"])) <= args.memory_limit_mib
    print(json.dumps({**result, "seconds": round(time.monotonic() - begin, 1), "passed": passed}))
    return 0 if passed else 1


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
