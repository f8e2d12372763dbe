"""What a transaction changes for those who wait for it: noted while it runs, told by NOTIFY when it is committed.

PostgreSQL commits transactions that notify one after the other, each with its own sync of the disk: some hundreds a
second, whoever writes. One that writes nothing waits for no disk. So whatever writes notes here what has changed, on
its own connection; `Database` hands that on after the commit, and many changes are told in a transaction of their own,
by `holdfast.streaming.herald`. A process that dies in between has told nobody: whoever waits looks now and then.

Only the trigger on `events` notifies as it writes, where a tenant has a webhook or Slack: `holdfast.store.deliveries`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

#: The channels: a run's status has changed, or its log has grown; the payload is the run's id.
STATUS = "holdfast_runs"
LOG = "holdfast_events"

#: A word is in the outbox that nobody but the relay says; without a payload.
OUTBOX = "holdfast_outbox"

_NOTED = "holdfast.changes"

_TELL = "SELECT pg_notify(channel, run_id) FROM unnest($1::text[], $2::text[]) AS changed (channel, run_id)"


@dataclass(frozen=True)
class Change:
    """Something that somebody may wait for."""

    channel: str
    run_id: str = ""


#: Who is handed what a committed transaction has changed. It must not wait.
Tell = Callable[[Collection[Change]], None]


def noting(connection: AsyncConnection) -> Collection[Change]:
    """What the transaction that begins on a connection will note."""
    noted: set[Change] = set()
    # This belongs to the pooled connection, and outlasts the transaction: each begins with one of its own.
    connection.info[_NOTED] = noted
    return noted


def note(connection: AsyncConnection, *changes: Change) -> None:
    """Have something told when the transaction is committed, and not before."""
    connection.info[_NOTED].update(changes)


async def tell(driver: Any, changes: Collection[Change]) -> None:
    """Notify, in a transaction of its own, through a connection of the driver (asyncpg). Needs no tenant."""
    await driver.execute(_TELL, [one.channel for one in changes], [one.run_id for one in changes])
