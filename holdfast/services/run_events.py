"""What happens in runs, for those who read along."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from holdfast.domain.errors import Gone, NotFound
from holdfast.domain.events import LoggedEvent, RunMerged
from holdfast.domain.exchanges import Place
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import OPEN
from holdfast.store import event_log, runs
from holdfast.store.engine import Database
from holdfast.streaming.run_changes import RunChanges
from holdfast.streaming.tail import MayGoOn, Tail, always


@dataclass(frozen=True)
class Told:
    """An event on the way to an answer. `hop` counts the merges before it; `is_before`: the answer begins after it."""

    run_id: str
    hop: int
    event: LoggedEvent
    is_before: bool


class RunEvents:
    """Reads the event logs of runs."""

    def __init__(self, database: Database, changes: RunChanges) -> None:
        self._database = database
        self._tail = Tail(database, changes)

    def stop(self) -> None:
        """End every stream, since the process stops; readers go on elsewhere."""
        self._tail.stop()

    @asynccontextmanager
    async def answering(
        self, caller: Caller, place: Place, *, to_the_end: bool = True, may_go_on: MayGoOn = always
    ) -> AsyncIterator[AsyncIterator[Told]]:
        """What leads to an answer: the log of its run, and, where that is merged into another, of that one.

        It ends early when the reader may not go on, as when this process stops.

        Raises:
            NotFound, Unavailable: as `following`.
        """
        view = caller.view(Permission.RUNS_READ)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await runs.status_of(connection, caller.tenant_id, place.run_id, view) is None:
                raise NotFound("response", place.response_id)
        told = self._answering(caller.tenant_id, place, to_the_end=to_the_end, may_go_on=may_go_on)
        async with aclosing(told):
            yield told

    async def _answering(
        self, tenant_id: str, place: Place, *, to_the_end: bool, may_go_on: MayGoOn
    ) -> AsyncGenerator[Told]:
        merged_into: str | None = place.run_id
        hop = 0
        while merged_into is not None:
            run_id, merged_into = merged_into, None
            log = self._tail.follow(tenant_id, run_id, 0, to_the_end=to_the_end, may_go_on=may_go_on)
            async with aclosing(log) as events:
                async for event in events:
                    if event.type == RunMerged.TYPE:
                        merged_into = str(json.loads(event.data)["merged_into"])
                    else:
                        yield Told(run_id, hop, event, is_before=event.seq <= place.after)
            if merged_into is not None:
                async with self._database.tenant(tenant_id) as connection:
                    place = Place(merged_into, await event_log.merged_at(connection, tenant_id, run_id, merged_into))
                hop += 1

    @asynccontextmanager
    async def following(
        self, caller: Caller, run_id: str, *, after: int = 0, to_the_end: bool = True, may_go_on: MayGoOn = always
    ) -> AsyncIterator[AsyncIterator[LoggedEvent]]:
        """The events of a run after number `after`, as they come, up to its end; leaving the block changes nothing.

        Not `to_the_end`: up to the newest that there is. They end early when the reader may not go on.

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
        log = self._tail.follow(caller.tenant_id, run_id, after, to_the_end=to_the_end, may_go_on=may_go_on)
        async with aclosing(log) as events:
            yield events
