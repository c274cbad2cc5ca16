"""What a person watches while a study runs: one line an event."""

import sys
import time
from dataclasses import dataclass, field

QUIET_SECONDS = 10.0
"""Measurements inside a fold are shown when nothing else was for this long."""


@dataclass(frozen=True)
class Event:
    """Something happened to a trial."""

    kind: str
    """``measured`` (inside a fold), ``fold`` (one more finished), ``complete``, ``stopped`` or ``failed``."""
    number: int
    fold_mae_months: tuple[float, ...]
    text: str
    folds_trained: int = 0
    """Folds trained since the event before: 1 or 0."""
    folds_replayed: int = 0
    """Folds found finished: 1 or 0."""
    stopped_at: str = ""
    """``screen``, ``halving`` or ``race``, where the trial was stopped."""
    images_seen: int = 0
    """Image passes that the trial has spent so far, in all its folds."""


@dataclass
class Board:
    """Prints what happened, how far the study is, what is best, and how long it may still take."""

    num_trials: int
    num_folds: int
    num_ended: int = 0
    """Trials that had ended before this run."""
    best: float = float("inf")
    """Lowest error of a complete trial so far, in months."""
    _started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _stopped: int = 0
    _failed: int = 0
    _folds_run: int = 0
    _folds_saved: int = 0

    def __post_init__(self) -> None:
        self._folds_wanted = (self.num_trials - self.num_ended) * self.num_folds
        before = f", {self.num_ended} of them ended before" if self.num_ended else ""
        self._print(f"search: {self.num_trials} trials x {self.num_folds} folds{before}")

    def __call__(self, event: Event) -> None:
        """Take note of an event and print it."""
        if event.kind == "measured" and time.monotonic() - self._last < QUIET_SECONDS:
            return
        self._folds_run += event.folds_trained
        self._folds_wanted -= event.folds_replayed
        if event.kind in ("complete", "stopped", "failed"):
            self.num_ended += 1
        if event.kind == "complete":
            self.best = min(self.best, sum(event.fold_mae_months) / self.num_folds)
        if event.kind in ("stopped", "failed"):
            self._folds_saved += self.num_folds - len(event.fold_mae_months)
            self._stopped += event.kind == "stopped"
            self._failed += event.kind == "failed"
        best = f"{self.best:.2f}" if self.best < float("inf") else "-"
        self._print(
            f"  {self.num_ended}/{self.num_trials} trials, best {best}, {self._stopped} stopped, {self._failed} failed"
            f"{self._time_left()} | trial {event.number} {event.text}"
        )

    def close(self, counts: dict[str, int]) -> None:
        """Say how it ended."""
        words = ", ".join(f"{count} {state}" for state, count in counts.items())
        minutes = (time.monotonic() - self._started) / 60
        self._print(f"search: {words}; {self._folds_run} folds trained, {self._folds_saved} saved; {minutes:.1f} min")

    def _time_left(self) -> str:
        if not self._folds_run:
            return ""
        rest = self._folds_wanted - self._folds_run - self._folds_saved
        minutes = (time.monotonic() - self._started) / self._folds_run * rest / 60
        return f", {minutes:.1f} min left at most"

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        print(line, file=sys.stderr, flush=True)
