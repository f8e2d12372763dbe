"""What happens in runs, for those who read along.

A message that joined another run is answered by that one: by what it tells from then on, to whom it may be shown. Who
may not read it is told its reply alone, in the end, and how it ended; `Runs.answering` holds the same of the record.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from holdfast.domain.errors import Gone, NotFound
from holdfast.domain.events import TERMINAL, LoggedEvent, MessageCompleted, RunMerged, RunQueued, RunStarted
from holdfast.domain.exchanges import Place
from holdfast.domain.permissions import Caller, Permission, View
from holdfast.domain.runs import OPEN
from holdfast.store import event_log, runs
from holdfast.store.engine import Database
from holdfast.streaming.run_changes import RunChanges
from holdfast.streaming.tail import MayGoOn, Tail, always


@dataclass(frozen=True)
class Told:
    """An event on the way to an answer. `hop` counts the merges before it; `is_before`: the answer begins after it.

    `run_id`: the run that tells it; or the message's own, where the one that it joined is not to be shown.
    """

    run_id: str
    hop: int
    event: LoggedEvent
    is_before: bool


#: Follows the log of a tenant's run, from behind a number.
Follow = Callable[[str, str, int], AsyncGenerator[LoggedEvent]]


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
        """What leads to an answer: the log of its run, and, where that is merged into another, what that one tells.

        It ends early when the reader may not go on, as when this process stops.

        Raises:
            NotFound, Unavailable: as `following`.
        """
        view = caller.view(Permission.RUNS_READ)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await runs.status_of(connection, caller.tenant_id, place.run_id, view) is None:
                raise NotFound("response", place.response_id)
        follow = partial(self._tail.follow, to_the_end=to_the_end, may_go_on=may_go_on)
        async with aclosing(self._answering(follow, caller.tenant_id, view, place)) as told:
            yield told

    async def _answering(self, follow: Follow, tenant_id: str, view: View, place: Place) -> AsyncGenerator[Told]:
        merged_into: str | None = None
        async with aclosing(follow(tenant_id, place.run_id, 0)) as events:
            async for event in events:
                if event.type == RunMerged.TYPE:
                    merged_into = str(json.loads(event.data)["merged_into"])
                else:
                    yield Told(place.run_id, 0, event, is_before=event.seq <= place.after)
        if merged_into is None:
            return
        async with aclosing(self._joined(follow, tenant_id, view, place.run_id, merged_into)) as joined:
            async for told in joined:
                yield told

    async def _joined(
        self, follow: Follow, tenant_id: str, view: View, run_id: str, merged_into: str
    ) -> AsyncGenerator[Told]:
        """What the run tells that another was merged into."""
        async with self._database.tenant(tenant_id) as connection:
            merged_at = await event_log.merged_at(connection, tenant_id, run_id, merged_into)
            is_shown = await runs.status_of(connection, tenant_id, merged_into, view) is not None
        hidden = None if is_shown else ReplyAlone()
        async with aclosing(follow(tenant_id, merged_into, 0)) as events:
            async for event in events:
                for shown in [event] if hidden is None else hidden.take(event):
                    yield Told(merged_into if is_shown else run_id, 1, shown, is_before=event.seq <= merged_at)

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


class ReplyAlone:
    """Takes the log of a run that its reader may not read; answers with what they are told of it."""

    def __init__(self) -> None:
        self._said: list[LoggedEvent] = []

    def take(self, event: LoggedEvent) -> list[LoggedEvent]:
        """What may be told, now that this has happened."""
        if event.type in (RunQueued.TYPE, RunStarted.TYPE):
            return [event]
        if event.type == MessageCompleted.TYPE:
            # The last one is the reply; those before may tell of what the run does.
            self._said = [event]
        if event.type not in TERMINAL:
            return []
        has_reply = json.loads(event.data)["reply_id"] is not None
        return [*self._said, event] if has_reply else [event]
