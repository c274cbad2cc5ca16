"""A version that a configuration file declares, on its way to be champion: loaded beside it, then crowned.

Of what is declared only a change counts: a promotion since then survives the keeper's next start. The ledger holds what
was declared last, written in the transaction that crowns it. Until then the rollout is begun anew by whichever keeper
comes next, however often one dies over it, and waits for whatever stands in its way.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from serve.database import Database
from serve.releases import ReleaseError, Releases
from serve.routing import Routing, RoutingConflictError, current_state
from serve.succession import Given, judge, note_stay

if TYPE_CHECKING:
    from ensemble.registry import Registry


class Rollout:
    """One version on its way.

    Args:
        database: The ledger's; its routing has begun.
        version: To be champion.
        declared: As the file names it.
        say: Called with one line at each change.
    """

    def __init__(self, database: Database, version: str, declared: str, say: Callable[[str], None]) -> None:
        self.version = version
        self._declared, self._say, self._said = declared, say, ""
        self._releases, self._routing = Releases(database, "service"), Routing(database)
        self._is_added = False

    @classmethod
    def begin(cls, database: Database, registry: "Registry", name: str, say: Callable[[str], None]) -> "Rollout | None":
        """What a configuration file asks for by naming a version; None where nothing is to be done.

        Args:
            database: The ledger's; on a new one the version is champion at once.
            registry: Where the name has its meaning.
            name: ``champion`` goes by `serve.succession`; any other counts when it means another version than the file
                declared the last time.
            say: Called with one line at each change.

        Raises:
            RegistryError: There is no such alias or version.
            LedgerDownError: The database does not answer.
        """
        from ensemble.registry import CHAMPION  # late: it loads torch

        given = Given.of(registry, name)
        Routing(database).begin(given.version)
        releases = Releases(database, "service")
        if name != CHAMPION:
            return None if releases.declared() == given.version else cls(database, given.version, given.version, say)
        with database.write() as connection:
            state = current_state(connection)
            assert state is not None, "the routing has begun"
            verdict = judge(connection, state, given)
            if verdict.why and not verdict.is_given:
                note_stay(connection, given, verdict)
        if verdict.why:
            say(verdict.why)
        if verdict.is_given:
            return cls(database, given.version, name, say)
        releases.declare(name)
        return None

    def advance(self) -> bool:
        """One round.

        Returns:
            Whether it is champion now.

        Raises:
            LedgerDownError: The database does not answer.
        """
        try:
            if not self._is_added:
                self._releases.add(self.version)
                self._is_added = True
            if self._is_loading():
                return False
            self._releases.crown(self.version, declared=self._declared)
        except (ReleaseError, RoutingConflictError) as error:  # somebody can do something about it meanwhile
            if str(error) != self._said:  # once a reason, not once a second
                self._say(f"the declared version {self.version} is not champion yet: {error}")
            self._said = str(error)
            return False
        return True

    def _is_loading(self) -> bool:
        state, row = self._routing.current(), self._releases.row(self.version)
        assert state is not None, "the routing has begun"
        if self.version == state.champion:
            return False
        return self.version in state.bundles() and (row is None or row["status"] == "loading")
