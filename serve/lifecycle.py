"""What can be done with an experiment: start, step, stop, promote, roll back. Each is one transaction, and recorded."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from serve import tables
from serve.database import Database
from serve.experiment import Experiment, ExperimentError, Policy
from serve.routing import RoutingConflictError, RoutingState, current_state, write_state

CANARY_SHARES = (0.05, 0.2, 0.5)


class Lifecycle:
    """Acts of one actor on one ledger.

    Args:
        database: Of the ledger.
        actor: Who acts, as the audit trail names it: a key's id, ``local`` or ``policy``.
        judged: Version of the routing on which the act was decided. Every act raises `RoutingConflictError` where the
            routing has moved on since; None acts on what holds, as a person means it.
    """

    def __init__(self, database: Database, actor: str, *, judged: int | None = None) -> None:
        self._database, self._actor, self._judged = database, actor, judged

    def start(
        self,
        name: str,
        challenger: str,
        *,
        mode: str = "shadow",
        shares: tuple[float, ...] = (),
        policy: Policy | None = None,
    ) -> RoutingState:
        """Start an experiment of the present champion against a challenger.

        Args:
            name: New on this ledger.
            challenger: Bundle version.
            mode: ``shadow``, ``split`` or ``canary``.
            shares: Of the subjects whom the challenger scores; none takes all (shadow), half (split) or
                `CANARY_SHARES`.
            policy: When it ends by itself.

        Raises:
            ExperimentError: Another experiment runs, the name is taken, or the definition is wrong.
            RoutingConflictError: Somebody else changed the routing at the same moment.
        """
        policy = policy or Policy()
        policy.check()
        with self._database.write() as connection:
            seen = self._present(connection)
            if seen.experiment:
                raise ExperimentError(f"Experiment {seen.experiment.name} runs. Stop it first: one at a time.")
            usual: dict[str, tuple[float, ...]] = {"shadow": (1.0,), "split": (0.5,), "canary": CANARY_SHARES}
            experiment = Experiment(
                name=name,
                mode=mode,
                champion=seen.champion,
                challenger=challenger,
                shares=shares or usual.get(mode, ()),
                salt=secrets.token_hex(8),
                policy=policy,
            )
            row = {"name": name, "started_s": time.time(), "definition": experiment.to_dict()}
            try:
                with connection.begin_nested():
                    connection.execute(sa.insert(tables.experiments), row)
            except IntegrityError:
                raise ExperimentError(f"There was an experiment {name!r} already. Choose another name.") from None
            return self._write(connection, seen, replace(seen, experiment=experiment), "experiment.start", {})

    def set_share(self, name: str, share: float) -> RoutingState:
        """Give the challenger of a running split another share.

        Raises:
            ExperimentError: It does not run, or is no split.
        """

        def changed(state: RoutingState, experiment: Experiment) -> RoutingState:
            if experiment.mode != "split":
                raise ExperimentError(f"{name} is a {experiment.mode}; only a split's share is set by hand.")
            return replace(state, experiment=replace(experiment, shares=(share,)))

        return self._change(name, "experiment.share", {"share": share}, changed)

    def step(self, name: str, data: Mapping[str, Any]) -> RoutingState:
        """Let a canary's share grow to its next step.

        Raises:
            ExperimentError: It does not run, or has no further step.
        """

        def changed(state: RoutingState, experiment: Experiment) -> RoutingState:
            return replace(state, experiment=replace(experiment, step=experiment.step + 1))

        return self._change(name, "experiment.step", data, changed)

    def stop(self, name: str, data: Mapping[str, Any]) -> RoutingState:
        """End an experiment without a decision; the champion stays."""
        return self._end(name, "stopped", data, lambda state: replace(state, experiment=None))

    def promote(self, name: str, data: Mapping[str, Any]) -> RoutingState:
        """End an experiment: its challenger is champion from now on; the champion before stays loaded."""
        return self._end(name, "promoted", data, _promoted)

    def rollback(self, name: str, data: Mapping[str, Any]) -> RoutingState:
        """Take the challenger out of a running experiment; or, after its promotion, bring the champion before back.

        Raises:
            ExperimentError: It neither runs nor was the last one promoted.
        """
        with self._database.write() as connection:
            seen = self._present(connection)
            runs = seen.experiment is not None and seen.experiment.name == name
            if not runs:
                row = _experiment_row(connection, name)
                definition = row.definition
                is_last = row.outcome == "promoted" and (seen.champion, seen.previous) == (
                    definition["challenger"],
                    definition["champion"],
                )
                if seen.experiment or not is_last:
                    raise ExperimentError(
                        f"Experiment {name} ended ({row.outcome}), and only a promotion that still holds can be "
                        f"taken back while no other experiment runs. The champion is {seen.champion}."
                    )
                _set_outcome(connection, name, "rolled back")
                champion = definition["champion"]
                loaded = tuple(each for each in seen.loaded if each != champion)
                wanted = replace(seen, champion=champion, previous=None, loaded=loaded)
                return self._write(connection, seen, wanted, "experiment.rollback", data)
        return self._end(name, "rolled back", data, lambda state: replace(state, experiment=None))

    def _end(
        self, name: str, outcome: str, data: Mapping[str, Any], changed: Callable[[RoutingState], RoutingState]
    ) -> RoutingState:
        act = {"stopped": "stop", "promoted": "promote", "rolled back": "rollback"}[outcome]
        with self._database.write() as connection:
            seen = self._running(connection, name)
            _set_outcome(connection, name, outcome)
            return self._write(connection, seen, changed(seen), f"experiment.{act}", data)

    def _change(
        self,
        name: str,
        act: str,
        data: Mapping[str, Any],
        changed: Callable[[RoutingState, Experiment], RoutingState],
    ) -> RoutingState:
        with self._database.write() as connection:
            seen = self._running(connection, name)
            assert seen.experiment is not None
            wanted = changed(seen, seen.experiment)
            assert wanted.experiment is not None
            # reports of it by hand and after its end read the step and the share there
            _set(connection, name, definition=wanted.experiment.to_dict())
            return self._write(connection, seen, wanted, act, data)

    def _present(self, connection: sa.Connection) -> RoutingState:
        if (state := current_state(connection)) is None:
            raise ExperimentError("No service has run on this ledger yet. Start one: python -m serve REGISTRY")
        if self._judged is not None and state.version != self._judged:
            raise RoutingConflictError(
                f"An act must meet the routing that it was decided on, version {self._judged}, and it is at "
                f"{state.version}. Look at it again."
            )
        return state

    def _running(self, connection: sa.Connection, name: str) -> RoutingState:
        state = self._present(connection)
        if state.experiment is None or state.experiment.name != name:
            row = _experiment_row(connection, name)
            raise ExperimentError(f"Experiment {name} does not run: it was {row.outcome}.")
        return state

    def _write(
        self, connection: sa.Connection, seen: RoutingState, wanted: RoutingState, act: str, data: Mapping[str, Any]
    ) -> RoutingState:
        return write_state(connection, seen, wanted, actor=self._actor, act=act, detail={"data": dict(data)})


def experiments(database: Database) -> list[dict[str, Any]]:
    """Every experiment there was, newest first: name, definition as it holds or held last, start, end and outcome."""
    with database.read() as connection:
        rows = connection.execute(sa.select(tables.experiments).order_by(tables.experiments.c.started_s.desc()))
        return [row._asdict() for row in rows]


def experiment_named(database: Database, name: str) -> dict[str, Any]:
    """One of `experiments`.

    Raises:
        ExperimentError: There is none of this name.
    """
    with database.read() as connection:
        return dict(_experiment_row(connection, name)._asdict())


def _promoted(state: RoutingState) -> RoutingState:
    assert state.experiment is not None
    challenger = state.experiment.challenger
    # the champion before stays warm, as after `Releases.crown`; the one before that makes room for it
    kept = (each for each in state.loaded if each not in (challenger, state.champion, state.previous))
    loaded = (*kept, state.champion)
    return replace(state, champion=challenger, previous=state.champion, experiment=None, loaded=loaded)


def _experiment_row(connection: sa.Connection, name: str) -> Any:
    table = tables.experiments
    if row := connection.execute(sa.select(table).where(table.c.name == name)).one_or_none():
        return row
    known = connection.execute(sa.select(table.c.name).order_by(table.c.started_s.desc()).limit(5)).scalars().all()
    have = f"The latest are {', '.join(known)}." if known else "There was none so far."
    raise ExperimentError(f"There is no experiment {name[:80]!r}. {have}")


def _set_outcome(connection: sa.Connection, name: str, outcome: str) -> None:
    _set(connection, name, ended_s=time.time(), outcome=outcome)


def _set(connection: sa.Connection, name: str, **values: Any) -> None:
    table = tables.experiments
    connection.execute(sa.update(table).where(table.c.name == name).values(values))
