"""What a person watches while a study runs: a table that redraws in place on a terminal, elsewhere a line an event."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TextIO

from search.screen import SHARE

QUIET_SECONDS = 10.0
"""Measurements inside a fold get a line when nothing else did for this long; the table takes all of them."""
MAX_RUNNING = 8
"""Trials in training that the table lists."""


@dataclass(frozen=True)
class Event:
    """Something happened to a trial."""

    kind: str
    """``measured`` (inside a fold), ``noted`` (the same, with a remark), ``fold`` (one more finished), ``complete``,
    ``stopped`` or ``failed``; ``partition``: on the second partition, which the account leaves out."""
    number: int
    fold_mae_months: tuple[float, ...]
    text: str
    folds_trained: int = 0
    """Folds trained since the event before: 1 or 0; of a trial that did not become complete, those that assistants had
    finished before their turn came."""
    folds_replayed: int = 0
    """Folds found finished: 1 or 0."""
    stopped_at: str = ""
    """``screen``, ``halving`` or ``race``, where the trial was stopped."""
    images_seen: int = 0
    """Image passes that the trial has spent so far, in all its folds and its short training."""
    fold_images: int = 0
    """Image passes of one whole fold of it; 0 before anything was measured."""
    screen_images: int = 0
    """Image passes of its short training; 0 where it had none."""


@dataclass
class Board:
    """Shows what happened, how far the study is, what is best, what it cost, and how long it may still take."""

    num_trials: int
    num_folds: int
    num_ended: int = 0
    """Trials that had ended before this run."""
    best: float = float("inf")
    """Lowest error of a complete trial so far, in months."""
    study: str = ""
    """Its folder, for the commands that show more of it."""
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    has_screens: bool = False
    """Whether trials begin with a short training."""
    images_before: dict[int, int] = field(default_factory=dict)
    """Image passes, by trial, of the trials that runs before have begun and not ended."""
    deadline: float | None = None
    """By the clock, in seconds: no fold begins after it."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any origin."""
    _best_trial: int | None = None
    _complete: int = 0
    _failed: int = 0
    _stops: dict[str, int] = field(default_factory=dict)
    _folds_run: int = 0
    _folds_found: int = 0
    _folds_saved: int = 0
    _images_saved: float = 0.0
    _fold_images: dict[int, int] = field(default_factory=dict)
    """Image passes of one fold, of each trial that was measured."""
    _screen_share: float = SHARE
    """The largest share of a fold that a short training took; of few passes it takes more than `SHARE`."""
    _ended: set[int] = field(default_factory=set)
    """Trials that ended in this run."""
    _running: dict[int, str] = field(default_factory=dict)
    _drawn: int = 0
    """Lines of the table on the terminal now."""

    def __post_init__(self) -> None:
        self._started = self._last = self.clock()
        self._images = dict(self.images_before)
        self._folds_wanted = (self.num_trials - self.num_ended) * self.num_folds
        self._is_terminal = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        before = f", {self.num_ended} of them ended before" if self.num_ended else ""
        self._print(f"search: {self.num_trials} trials x {self.num_folds} folds{before}")
        if self.study:
            self._print(f"search: curves: tensorboard --logdir {shlex.quote(self.study)}/tune")
            self._print(f"search: page, at any time: python -m search report {shlex.quote(self.study)}")

    def __call__(self, event: Event) -> None:
        """Take note of an event and show it."""
        self._note(event)
        if self._is_terminal:
            self._draw([*self.table(), f"  last      trial {event.number} {event.text}"])
        elif event.kind not in ("measured", "screened") or self.clock() - self._last >= QUIET_SECONDS:
            best = f"{self.best:.2f}" if self.best < float("inf") else "-"
            self._print(
                f"  {self.num_ended}/{self.num_trials} trials, best {best}, {sum(self._stops.values())} stopped, "
                f"{self._failed} failed{self._time_left(', ')} | trial {event.number} {event.text}"
            )

    def table(self) -> list[str]:
        """The lines that a terminal shows, without the last event."""
        best = "none complete yet"
        if self.best < float("inf"):
            whose = f", trial {self._best_trial}" if self._best_trial is not None else ", of an earlier run"
            best = f"{self.best:.2f} months{whose}"
        where = ", ".join(f"{count} in the {stage}" for stage, count in self._stops.items() if stage)
        stopped = f"{sum(self._stops.values())} stopped" + (f" ({where})" if where else "")
        spent, done = sum(self._images.values()), self._folds_run + self._folds_found
        lines = [
            f"  best      {best}",
            f"  trials    {self.num_ended} of {self.num_trials} ended: {self._complete} complete, {stopped}, "
            f"{self._failed} failed in this run",
            f"  folds     {done} of {self._folds_wanted} done, {self._folds_saved} saved",
        ]
        if spent:
            factor = (spent + self._images_saved) / spent
            saved = f"about {self._images_saved:,.0f} saved: {factor:.1f} times fewer than full cross-validation"
            if self._images_saved <= 0:
                saved = "none saved so far beside full cross-validation"
            lines.append(f"  images    {spent:,} passes spent, {saved}")
        lines.append(f"  time      {(self.clock() - self._started) / 60:.1f} min{self._time_left(', ')}")
        shown = sorted(self._running)[:MAX_RUNNING]
        lines += [f"  running   trial {number:<4d} {self._running[number]}" for number in shown]
        if len(self._running) > len(shown):
            lines.append(f"            and {len(self._running) - len(shown)} more")
        return lines

    def close(self, counts: dict[str, int]) -> None:
        """Say how it ended."""
        words = ", ".join(f"{count} {state}" for state, count in counts.items())
        minutes = (self.clock() - self._started) / 60
        self._drawn = 0  # the table stays where it is
        self._print(f"search: {words}; {self._folds_run} folds trained, {self._folds_saved} saved; {minutes:.1f} min")

    def _note(self, event: Event) -> None:
        if event.kind == "partition":
            return
        finished = len(event.fold_mae_months)
        self._folds_run += event.folds_trained
        self._folds_found += event.folds_replayed
        self._images[event.number] = max(event.images_seen, self._images.get(event.number, 0))
        if event.fold_images:
            self._fold_images[event.number] = event.fold_images
        if event.kind == "screened":  # it waits for its generation
            self._running.pop(event.number, None)
            if event.fold_images:
                self._screen_share = max(self._screen_share, event.screen_images / event.fold_images)
            return
        if event.kind in ("measured", "noted", "fold"):
            self._running[event.number] = event.text
            return
        self._running.pop(event.number, None)
        self.num_ended += 1
        self._ended.add(event.number)
        if event.kind == "complete":
            self._complete += 1
            if event.number in self._fold_images:  # its short training, which full cross-validation has no need of
                excess = self._images[event.number] - self.num_folds * self._fold_images[event.number]
                self._images_saved -= max(0, excess)
            mae = sum(event.fold_mae_months) / self.num_folds
            if mae < self.best:
                self.best, self._best_trial = mae, event.number
            return
        if event.kind == "failed":
            self._failed += 1
        else:
            self._folds_saved += self.num_folds - finished - event.folds_trained
            self._images_saved += self._rest_of([event.number], self.num_folds)
            self._stops[event.stopped_at] = self._stops.get(event.stopped_at, 0) + 1

    def _rest_of(self, numbers: Iterable[int], num_folds: float) -> float:
        """Image passes that trials would still take up to so many folds; one without a measurement like the others."""
        mean = self._mean_fold
        rests = (num_folds * self._fold_images.get(number, mean) - self._images.get(number, 0) for number in numbers)
        return sum(max(0.0, rest) for rest in rests)

    @property
    def _mean_fold(self) -> float:
        known = self._fold_images.values()
        return sum(known) / len(known) if known else 0.0

    def _images_left(self) -> float:
        """Image passes that the search will still take where no trial is stopped any more."""
        folds = self.num_folds + (self._screen_share if self.has_screens else 0.0)
        begun = self._images.keys() - self._ended
        num_new = self.num_trials - self.num_ended - len(begun)
        return self._rest_of(begun, folds) + num_new * folds * self._mean_fold

    def _time_left(self, before: str) -> str:
        now, spent = self.clock(), sum(self._images.values()) - sum(self.images_before.values())
        most = float("inf")
        if spent and self._fold_images and self.num_ended < self.num_trials:  # a second partition is not in the account
            most = (now - self._started) / spent * self._images_left()
        until = float("inf") if self.deadline is None else max(0.0, self.deadline - now)
        if until < most:
            return f"{before}{until / 60:.1f} min left until the deadline"
        return f"{before}{most / 60:.1f} min left at most" if most < float("inf") else ""

    def _draw(self, lines: list[str]) -> None:
        """Replace the table on the terminal, each line cut to its width so that the lines can be counted."""
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self.stream.write(up + "\x1b[J" + "".join(f"{line[:width]}\n" for line in lines))
        self.stream.flush()
        self._drawn = len(lines)

    def _print(self, line: str) -> None:
        self._last = self.clock()
        print(line, file=self.stream, flush=True)


def all_of(*listeners: Callable[[Event], None]) -> Callable[[Event], None]:
    """One listener that tells several, in order."""

    def say(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return say
