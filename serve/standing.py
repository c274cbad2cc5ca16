"""How an experiment stands, followed from round to round: the figures of its report that a policy judges by.

A report reads the whole experiment. These are the same figures, computed by the same functions, at a cost that does not
grow with its age: a window of the last answers, the readings that are new, and the next stride of the predictions. A
keeper that starts anew catches up in as many rounds as it takes.
"""

from typing import Any

import sqlalchemy as sa

from serve.assignment import Assignment, ratio
from serve.experiment import Experiment
from serve.experiment_report import difference
from serve.readings import Readings, Units
from serve.recent import recent


class Standing:
    """One experiment, followed.

    Args:
        experiment: Its name and mode stay as they are; step and share may change from round to round.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.name, self._is_shadow = experiment.name, experiment.mode == "shadow"
        self._readings = Readings(self.name, has_shadows=self._is_shadow)
        self._assignment = None if self._is_shadow else Assignment(self.name)
        self._units: Units | None = None
        self._difference: dict[str, Any] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the last round reached the newest reading and the newest prediction; `recent` always does."""
        return self._readings.is_complete and (self._assignment is None or self._assignment.is_complete)

    def advance(self, connection: sa.Connection, experiment: Experiment) -> dict[str, Any]:
        """One round.

        Returns:
            ``recent``, ``difference``, ``ratio`` and, where the challenger answers, ``arms``, as in the report.
        """
        self._readings.advance(connection)
        found: dict[str, Any] = {"recent": recent(connection, experiment), "ratio": None}
        if self._assignment:
            self._assignment.advance(connection)
            found["ratio"] = ratio(self._assignment.subjects)
            found["arms"] = {"challenger": {"answered": self._assignment.answered["challenger"]}}
        if (units := self._readings.units()) is not self._units:  # the sequence takes its time where readings are many
            self._units = units
            self._difference = difference(units, is_shadow=self._is_shadow, alpha=experiment.policy.alpha)
        return {**found, "difference": self._difference}
