"""What one way of searching spent, in image passes, and what it had finished by when."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spent:
    """What one way of searching spent, and the trials that it completed."""

    passes: int
    complete: dict[int, int]
    """Trial to the image passes that had been spent in all when it was complete."""
    folds: dict[int, dict[int, int]] = field(default_factory=dict)
    """Trial to each of its finished folds and the passes that had been spent when that ended; of the stock rule."""

    def within(self, passes: int) -> list[int]:
        """Trials that were complete by then."""
        return [number for number, at in self.complete.items() if at <= passes]

    def folds_within(self, passes: int) -> dict[int, list[int]]:
        """Trials with a fold that was finished by then, and those folds."""
        found = {number: [fold for fold, at in of.items() if at <= passes] for number, of in self.folds.items()}
        return {number: folds for number, folds in found.items() if folds}
