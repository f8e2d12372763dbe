"""What happens in runs, for those who read along."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from holdfast.domain.errors import NotFound
from holdfast.domain.events import LoggedEvent
from holdfast.domain.permissions import Caller, Permission
from holdfast.store import runs
from holdfast.store.engine import Database
from holdfast.streaming.run_changes import RunChanges
from holdfast.streaming.tail import Tail


class RunEvents:
    """Reads the event logs of runs."""

    def __init__(self, database: Database, changes: RunChanges) -> None:
        self._database = database
        self._tail = Tail(database, changes)

    def stop(self) -> None:
        """End every stream, since the process stops; readers go on elsewhere."""
        self._tail.stop()

    @asynccontextmanager
    async def following(
        self, caller: Caller, run_id: str, *, after: int = 0, to_the_end: bool = True
    ) -> AsyncIterator[AsyncIterator[LoggedEvent]]:
        """The events of a run after number `after`, as they come, up to its end; leaving the block changes nothing.

        Not `to_the_end`: up to the newest that there is.

        Raises:
            NotFound: the caller sees no run with this id.
            Unavailable: the database does not answer at the beginning; later, it is waited for.
        """
        view = caller.view(Permission.RUNS_READ)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await runs.status_of(connection, caller.tenant_id, run_id, view) is None:
                raise NotFound("run", run_id)
        async with aclosing(self._tail.follow(caller.tenant_id, run_id, after, to_the_end=to_the_end)) as events:
            yield events
