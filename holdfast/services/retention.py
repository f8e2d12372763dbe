"""Retention: what is kept of runs that ended long ago goes by itself, a little at a time.

Events are told for as long as somebody may want to read along again, and deliveries of them are listed for as long,
with what they have posted in Slack; pieces of text much shorter, since the whole of it is told as well. The record of a
run stays: its messages, tool calls, decisions and audit log (`holdfast erase` is for those).
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.services.looking import Looking
from holdfast.store import retention, tenants
from holdfast.store.engine import Database
from holdfast.store.retention import Removed

log = logging.getLogger(__name__)

#: How long to rest before each look, in seconds.
_REST_S = 600.0

#: How long pieces of text are kept after a run's end, for those who read along with an interruption.
DELTAS_KEPT = timedelta(hours=1)


class Remove(Protocol):
    """A named query of `holdfast.store`: removes what is so old, of a few runs, in the transaction of a tenant."""

    async def __call__(
        self, connection: AsyncConnection, tenant_id: str, age: timedelta, *, after: str = ""
    ) -> Removed: ...


@dataclass(frozen=True)
class Kept:
    """Something that is kept for a time after the end of its run, and how it is removed then."""

    name: str
    age: timedelta
    remove: Remove


def kept(events: timedelta | None) -> list[Kept]:
    """What goes by itself. `events` None: events and deliveries stay for good."""
    deltas = Kept("pieces of text", DELTAS_KEPT, retention.remove_deltas)
    if events is None:
        return [deltas]
    return [
        deltas,
        Kept("deliveries", events, retention.remove_deliveries),
        Kept("events", events, retention.remove_events),
    ]


class Retention(Looking):
    """Runs in every API process; several of them share the work, since each leaves what another is at."""

    def __init__(self, database: Database, kept: Sequence[Kept]) -> None:
        super().__init__("retention")
        self._database = database
        self._kept = kept

    async def remove_aged(self) -> int:
        """Remove all that has had its time, of every tenant; answers with how many runs lost something."""
        async with self._database.relay() as connection:
            found = await tenants.all_names(connection)
        removed = 0
        for tenant_id in found:
            for each in self._kept:
                removed += await self._remove(tenant_id, each)
        return removed

    async def _remove(self, tenant_id: str, each: Kept) -> int:
        """A transaction for a few runs, so that nobody waits long for them."""
        removed, look = 0, Removed(0, "", is_all=False)
        while not look.is_all:
            async with self._database.tenant(tenant_id) as connection:
                look = await each.remove(connection, tenant_id, each.age, after=look.last)
            removed += look.runs
        if removed:
            log.info("the %s of %s runs of tenant %s had their time and are removed", each.name, removed, tenant_id)
        return removed

    async def _run(self) -> None:
        # A process that begins has better things to do.
        await self._rest()
        await super()._run()

    async def _look(self) -> None:
        await self.remove_aged()

    async def _rest(self) -> None:
        await asyncio.sleep(_REST_S)
