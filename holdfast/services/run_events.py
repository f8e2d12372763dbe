"""What happens in runs, for those who read along."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from holdfast.domain.errors import Gone, NotFound
from holdfast.domain.events import LoggedEvent
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import OPEN
from holdfast.store import event_log, runs
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
            Gone: its log is not kept any more.
            Unavailable: the database does not answer at the beginning; later, it is waited for.
        """
        view = caller.view(Permission.RUNS_READ)
        async with self._database.tenant(caller.tenant_id) as connection:
            status = await runs.status_of(connection, caller.tenant_id, run_id, view)
            if status is None:
                raise NotFound("run", run_id)
            if status not in OPEN and not await event_log.is_kept(connection, caller.tenant_id, run_id):
                raise Gone(f"The events of run {run_id!r} are not kept any more; GET /v1/runs/{run_id} has the run.")
        async with aclosing(self._tail.follow(caller.tenant_id, run_id, after, to_the_end=to_the_end)) as events:
            yield events
