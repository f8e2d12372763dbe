"""The event log of a run: written in the transaction of what it records, read by number.

Numbers come from a counter on the run's row, which stays locked until the transaction ends: they have no gap, and are
committed in their order, so that whoever has read up to one misses none before it. A statement that changes the run
itself counts up in passing; others add `counted` and `logged` below to their own, which costs no round trip, and note
that the log has grown (`grown`), which readers are told after the commit. When a run has ended, its log is closed.

Pieces of text share the numbers. Which try may write them stands on the run's row too (`stream_…`), and each write
compares: a worker that was thought to be dead writes nothing into the text of its successor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.events import ConfirmationDecided, Event, LoggedEvent, MessageReset, RunMerged
from holdfast.domain.runs import OPEN
from holdfast.store import changes
from holdfast.store.changes import LOG, Change
from holdfast.store.tables.runs import OPEN_STATES


def counted(after: str, also: str = "", more: str = "0") -> str:
    """A part of a WITH: counts the events of `parameters` on the run of the part called `after`, if that did something.

    Args:
        after: a part that gives `run_id`. Joined, and not asked in a subquery, which PostgreSQL could not look at again
            when it had to wait for the run's row.
        also: what else to set on the run.
        more: how many numbers more are needed.
    """
    return f"""
counted AS (
  UPDATE runs r SET last_seq = r.last_seq + cardinality(CAST(:types AS text[])) + {more}{also}
  FROM {after} WHERE r.tenant_id = :tenant_id AND r.run_id = {after}.run_id AND r.status IN {OPEN_STATES}
  RETURNING r.run_id, r.last_seq, r.stream_attempt
)"""


def logged(by: str = "counted") -> str:
    """A part of a WITH: logs the events of `parameters` as the newest of the run in the part called `by`."""
    return f"""
logged AS (
  INSERT INTO events (tenant_id, run_id, seq, type, data)
  SELECT :tenant_id, {by}.run_id, {by}.last_seq - cardinality(CAST(:types AS text[])) + told.place, told.type,
         CAST(told.data AS json)
  FROM {by}, unnest(CAST(:types AS text[]), CAST(:data AS text[])) WITH ORDINALITY AS told (type, data, place)
)"""


def parameters(events: Sequence[Event]) -> dict[str, list[str]]:
    """What the parts above are given."""
    return {"types": [event.TYPE for event in events], "data": [event.data for event in events]}


_APPEND = text(f"""
WITH this AS (SELECT CAST(:run_id AS text) AS run_id), {counted("this")}, {logged()}
SELECT run_id FROM counted
""")

# A run is told of with what is new of its log as of one moment: as much as there is room for, and at least one event.
_READ = text("""
SELECT r.status, e.seq, e.type, e.data
FROM runs r LEFT JOIN LATERAL (
  SELECT seq, type, data, sum(octet_length(data)) OVER (ORDER BY seq) - octet_length(data) AS bytes_before FROM (
    SELECT seq, type, CAST(data AS text) AS data FROM events
    WHERE tenant_id = r.tenant_id AND run_id = r.run_id AND seq > :after
    UNION ALL
    SELECT seq, 'message.delta', CAST(json_build_object('step', step, 'attempt', attempt, 'text', text) AS text)
    FROM deltas WHERE tenant_id = r.tenant_id AND run_id = r.run_id AND seq > :after
    ORDER BY seq LIMIT :limit
  ) newest
) e ON e.bytes_before < :bytes
WHERE r.tenant_id = :tenant_id AND r.run_id = :run_id
ORDER BY e.seq
""")

# Every log has an event that is no delta, from its beginning on.
_IS_KEPT = text("SELECT EXISTS (SELECT FROM events WHERE tenant_id = :tenant_id AND run_id = :run_id)")
_DECIDED_AT = text(f"""
SELECT max(seq) FROM events WHERE tenant_id = :tenant_id AND run_id = :run_id AND type = '{ConfirmationDecided.TYPE}'
  AND data ->> 'confirmation_id' = ANY(:confirmation_ids)
""")

_WITHOUT_PIECES = text("""
SELECT seq, type, CAST(data AS text) AS data FROM events WHERE tenant_id = :tenant_id AND run_id = :run_id ORDER BY seq
""")

_IS_DECISION = text(f"""
SELECT EXISTS (SELECT FROM events
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND seq = :seq AND type = '{ConfirmationDecided.TYPE}')
""")

# Whatever merges a run has locked the other one: nothing comes between the two in that one's log.
_MERGED_AT = text(f"""
SELECT max(seq) FROM events WHERE tenant_id = :tenant_id AND run_id = :merged_into AND created_at <= (
  SELECT created_at FROM events WHERE tenant_id = :tenant_id AND run_id = :run_id AND type = '{RunMerged.TYPE}'
)
""")

_MAY_STREAM = f"""
status IN {OPEN_STATES} AND (stream_step < :step OR stream_step = :step AND coalesce(stream_began <= :began, true))"""

_OPEN_STREAM = text(f"""
WITH opened AS (
  UPDATE runs SET last_seq = last_seq + 1, stream_attempt = stream_attempt + 1, stream_is_open = true,
                  stream_step = :step, stream_began = :began
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND NOT stream_is_open AND {_MAY_STREAM}
  RETURNING run_id, last_seq, stream_attempt
), written AS (
  INSERT INTO deltas (tenant_id, run_id, seq, step, attempt, text)
  SELECT :tenant_id, run_id, last_seq, CAST(:step AS int), stream_attempt, CAST(:text AS text) FROM opened
)
SELECT stream_attempt FROM opened
""")

_WRITE = text("""
WITH counted AS (
  UPDATE runs SET last_seq = last_seq + 1
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND stream_is_open AND stream_attempt = CAST(:attempt AS int)
  RETURNING run_id, last_seq
), written AS (
  INSERT INTO deltas (tenant_id, run_id, seq, step, attempt, text)
  SELECT :tenant_id, run_id, last_seq, CAST(:step AS int), CAST(:attempt AS int), CAST(:text AS text) FROM counted
)
SELECT run_id FROM counted
""")

# Of a try before, or, if it is named, of this one.
_VOID = text(f"""
WITH voided AS (
  UPDATE runs SET last_seq = last_seq + 1, stream_is_open = false, stream_step = :step, stream_began = :began
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND stream_is_open AND {_MAY_STREAM}
    AND coalesce(stream_attempt = CAST(:attempt AS int), true)
  RETURNING run_id, last_seq, stream_attempt
), logged AS (
  INSERT INTO events (tenant_id, run_id, seq, type, data)
  SELECT :tenant_id, run_id, last_seq, '{MessageReset.TYPE}',
         json_build_object('step', CAST(:step AS int), 'attempt', stream_attempt)
  FROM voided
)
SELECT run_id FROM voided
""")


@dataclass(frozen=True)
class Try:
    """One try of a model call that may stream. Of two tries of a step, the one that `began` later has the say."""

    tenant_id: str
    run_id: str
    step: int
    began: datetime


@dataclass(frozen=True)
class Tail:
    """The rest of a text that streams, to be told with the whole of it. `attempt` None: nothing was streamed before."""

    text: str = ""
    attempt: int | None = None


@dataclass(frozen=True)
class Page:
    """The next events of a log. `has_ended`: there are none, and there will be none, since its run has ended."""

    events: list[LoggedEvent]
    has_ended: bool


async def append(connection: AsyncConnection, tenant_id: str, run_id: str, *events: Event) -> None:
    """Log what happened in a run, in the transaction of what it tells. Locks the run; one that has ended is left."""
    if not events:
        return
    values = {"tenant_id": tenant_id, "run_id": run_id, **parameters(events)}
    grown(connection, await connection.scalar(_APPEND, values))


def grown(connection: AsyncConnection, run_id: str | None) -> bool:
    """Have the readers of a log that has grown look, after the commit. False: none has, there is no run."""
    if run_id is not None:
        changes.note(connection, Change(LOG, run_id))
    return run_id is not None


async def read(
    connection: AsyncConnection, tenant_id: str, run_id: str, *, after: int, limit: int, max_bytes: int
) -> Page:
    """What follows number `after` in the log of a run that exists.

    Args:
        after: the number of the last event that was read.
        limit: how many events at most.
        max_bytes: how much data at most, unless a single event has more.
    """
    values = {"tenant_id": tenant_id, "run_id": run_id, "after": after, "limit": limit, "bytes": max_bytes}
    rows = (await connection.execute(_READ, values)).all()
    found = [LoggedEvent(row.seq, row.type, row.data) for row in rows if row.seq is not None]
    return Page(found, has_ended=rows[0].status not in OPEN and not found)


async def is_kept(connection: AsyncConnection, tenant_id: str, run_id: str) -> bool:
    """Whether there is a log of a run that has ended: it may be too old, or erased, or older than logs are."""
    return bool(await connection.scalar(_IS_KEPT, {"tenant_id": tenant_id, "run_id": run_id}))


async def decided_at(connection: AsyncConnection, tenant_id: str, run_id: str, confirmation_ids: Sequence[str]) -> int:
    """The number of the last decision on some confirmations; 0: the log has none (any more)."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "confirmation_ids": list(confirmation_ids)}
    return int(await connection.scalar(_DECIDED_AT, values) or 0)


async def is_decision(connection: AsyncConnection, tenant_id: str, run_id: str, seq: int) -> bool:
    """Whether an event is a decision."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "seq": seq}
    return bool(await connection.scalar(_IS_DECISION, values))


async def without_pieces(connection: AsyncConnection, tenant_id: str, run_id: str) -> list[LoggedEvent]:
    """The log of a run as it stands, without the pieces of text."""
    rows = await connection.execute(_WITHOUT_PIECES, {"tenant_id": tenant_id, "run_id": run_id})
    return [LoggedEvent(row.seq, row.type, row.data) for row in rows]


async def merged_at(connection: AsyncConnection, tenant_id: str, run_id: str, merged_into: str) -> int:
    """The number of the last event in a run's log before another run was merged into it."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "merged_into": merged_into}
    return int(await connection.scalar(_MERGED_AT, values) or 0)


async def open_stream(connection: AsyncConnection, own: Try, text: str) -> int | None:
    """Write the first text of a try; answers with the number that its text goes under.

    What another try has left is taken back first. None: a later one has the say, or the step is stored.
    """
    values = {**vars(own), "text": text}
    opened: int | None = await connection.scalar(_OPEN_STREAM, values)
    if opened is None and await void(connection, own):
        opened = await connection.scalar(_OPEN_STREAM, values)
    grown(connection, None if opened is None else own.run_id)
    return opened


async def write(connection: AsyncConnection, own: Try, attempt: int, text: str) -> bool:
    """Write more text of a try. False: it has nothing to say any more."""
    values = {**vars(own), "attempt": attempt, "text": text}
    return grown(connection, await connection.scalar(_WRITE, values))


async def void(connection: AsyncConnection, own: Try, attempt: int | None = None) -> bool:
    """Take back what stands of a try that broke off, by default of whichever. False: there is nothing to take back."""
    values: dict[str, Any] = {**vars(own), "attempt": attempt}
    return grown(connection, await connection.scalar(_VOID, values))
