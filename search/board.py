"""What a person watches while a study runs: a table that redraws in place on a terminal, elsewhere a line an event."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

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
    """Image passes that the trial has spent so far, in all its folds."""


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
    _started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _best_trial: int | None = None
    _complete: int = 0
    _failed: int = 0
    _stops: dict[str, int] = field(default_factory=dict)
    _folds_run: int = 0
    _folds_saved: int = 0
    _images: dict[int, int] = field(default_factory=dict)
    """Image passes of the trials that this run has seen."""
    _images_saved: float = 0.0
    _fold_images: list[float] = field(default_factory=list)
    """Image passes of one fold, of each trial that finished one."""
    _running: dict[int, str] = field(default_factory=dict)
    _drawn: int = 0
    """Lines of the table on the terminal now."""

    def __post_init__(self) -> None:
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
        elif event.kind not in ("measured", "screened") or time.monotonic() - self._last >= QUIET_SECONDS:
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
        spent = sum(self._images.values())
        lines = [
            f"  best      {best}",
            f"  trials    {self.num_ended} of {self.num_trials} ended: {self._complete} complete, {stopped}, "
            f"{self._failed} failed in this run",
        ]
        if spent:
            factor = (spent + self._images_saved) / spent
            saved = f"about {self._images_saved:,.0f} saved: {factor:.1f} times fewer than full cross-validation"
            lines.append(f"  images    {spent:,} passes spent, {saved}")
        lines.append(f"  time      {(time.monotonic() - self._started) / 60:.1f} min{self._time_left(', ')}")
        shown = sorted(self._running)[:MAX_RUNNING]
        lines += [f"  running   trial {number:<4d} {self._running[number]}" for number in shown]
        if len(self._running) > len(shown):
            lines.append(f"            and {len(self._running) - len(shown)} more")
        return lines

    def close(self, counts: dict[str, int]) -> None:
        """Say how it ended."""
        words = ", ".join(f"{count} {state}" for state, count in counts.items())
        minutes = (time.monotonic() - self._started) / 60
        self._drawn = 0  # the table stays where it is
        self._print(f"search: {words}; {self._folds_run} folds trained, {self._folds_saved} saved; {minutes:.1f} min")

    def _note(self, event: Event) -> None:
        if event.kind == "partition":
            return
        finished = len(event.fold_mae_months)
        self._folds_run += event.folds_trained
        self._folds_wanted -= event.folds_replayed
        self._images[event.number] = max(event.images_seen, self._images.get(event.number, 0))
        if event.kind in ("fold", "complete") and event.images_seen:
            self._fold_images.append(event.images_seen / finished)
        if event.kind == "screened":  # it waits for its generation
            self._running.pop(event.number, None)
            return
        if event.kind in ("measured", "noted", "fold"):
            self._running[event.number] = event.text
            return
        self._running.pop(event.number, None)
        self.num_ended += 1
        if event.kind == "complete":
            self._complete += 1
            mae = sum(event.fold_mae_months) / self.num_folds
            if mae < self.best:
                self.best, self._best_trial = mae, event.number
            return
        self._folds_saved += self.num_folds - finished - event.folds_trained
        if event.kind == "failed":
            self._failed += 1
        else:
            self._images_saved += self._rest_of(event)
            self._stops[event.stopped_at] = self._stops.get(event.stopped_at, 0) + 1

    def _rest_of(self, event: Event) -> float:
        """Image passes that the folds of a stopped trial would still take, as far as finished folds tell."""
        finished = len(event.fold_mae_months) + event.folds_trained
        if finished and event.stopped_at in ("", "race"):
            per_fold = event.images_seen / finished
        elif self._fold_images:
            per_fold = sum(self._fold_images) / len(self._fold_images)
        else:
            return 0.0
        return max(0.0, per_fold * self.num_folds - event.images_seen)

    def _time_left(self, before: str) -> str:
        if not self._folds_run:
            return ""
        rest = self._folds_wanted - self._folds_run - self._folds_saved
        minutes = (time.monotonic() - self._started) / self._folds_run * rest / 60
        return f"{before}{minutes:.1f} min left at most"

    def _draw(self, lines: list[str]) -> None:
        """Replace the table on the terminal, each line cut to its width so that the lines can be counted."""
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self.stream.write(up + "\x1b[J" + "".join(f"{line[:width]}\n" for line in lines))
        self.stream.flush()
        self._drawn = len(lines)

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        print(line, file=self.stream, flush=True)


def all_of(*listeners: Callable[[Event], None]) -> Callable[[Event], None]:
    """One listener that tells several, in order."""

    def say(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return say
