"""Removing what has had its time: events, pieces of text, and deliveries with what they posted, of runs that ended so
long ago.

Ids of runs sort by the time they were made, so the oldest logs are the first of their table: they are found there, a
run at a time, and not among the runs of years. The runs are locked first, as erasure does it; what erasure has locked
is left to it, and what another process removes, to that one.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Interval, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

# A run that ended before a time was made before it: from the first that is younger on, none is old enough.
_REMOVE = """
WITH RECURSIVE logs AS (
  (SELECT run_id FROM {table} WHERE tenant_id = :tenant_id AND run_id > :after ORDER BY run_id LIMIT 1)
  UNION ALL
  SELECT following.run_id FROM logs, LATERAL (
    SELECT run_id FROM {table} WHERE tenant_id = :tenant_id AND run_id > logs.run_id ORDER BY run_id LIMIT 1
  ) following
), oldest AS (
  SELECT run_id FROM logs LIMIT :limit
), aged AS (
  SELECT r.run_id FROM runs r JOIN oldest o ON o.run_id = r.run_id
  WHERE r.tenant_id = :tenant_id AND r.completed_at < clock_timestamp() - CAST(:age AS interval)
  FOR NO KEY UPDATE OF r SKIP LOCKED
), removed AS (
  DELETE FROM {table} WHERE tenant_id = :tenant_id AND run_id IN (SELECT run_id FROM aged) RETURNING run_id
){also}
SELECT (SELECT count(DISTINCT run_id) FROM removed) AS runs, max(o.run_id) AS last,
       count(*) < :limit OR bool_or(r.created_at >= clock_timestamp() - CAST(:age AS interval)) AS is_all
FROM oldest o JOIN runs r ON r.tenant_id = :tenant_id AND r.run_id = o.run_id
"""

# Together with the deliveries: as long as there is one, it must know what it has posted.
_AND_POSTS = """, posts AS (
  DELETE FROM slack_posts WHERE tenant_id = :tenant_id AND subject_id IN (
    SELECT run_id FROM aged
    UNION ALL
    SELECT c.confirmation_id || what FROM confirmations c, unnest(ARRAY['', '\\:reminder']) what
    WHERE c.tenant_id = :tenant_id AND c.run_id IN (SELECT run_id FROM aged)
  )
)"""


def _removing_from(table: str, also: str = "") -> TextClause:
    return text(_REMOVE.format(table=table, also=also)).bindparams(bindparam("age", type_=Interval))


_REMOVE_EVENTS = _removing_from("events")
_REMOVE_DELTAS = _removing_from("deltas")
_REMOVE_DELIVERIES = _removing_from("deliveries", _AND_POSTS)


@dataclass(frozen=True)
class Removed:
    """What one look did. `runs`: how many runs lost something; `last`: the last that was looked at, from which to go
    on; `is_all`: there is nothing left to look at."""

    runs: int
    last: str
    is_all: bool


async def remove_events(
    connection: AsyncConnection, tenant_id: str, age: timedelta, *, after: str = "", limit: int = 100
) -> Removed:
    """Remove the events of runs that ended `age` ago, of the first `limit` logs after the run `after`."""
    return await _remove(connection, _REMOVE_EVENTS, tenant_id, age, after, limit)


async def remove_deltas(
    connection: AsyncConnection, tenant_id: str, age: timedelta, *, after: str = "", limit: int = 100
) -> Removed:
    """The same of pieces of text, in place of which the whole text stands in the log."""
    return await _remove(connection, _REMOVE_DELTAS, tenant_id, age, after, limit)


async def remove_deliveries(
    connection: AsyncConnection, tenant_id: str, age: timedelta, *, after: str = "", limit: int = 100
) -> Removed:
    """The same of deliveries, with what is known of their posts in Slack: what they told is gone with the events."""
    return await _remove(connection, _REMOVE_DELIVERIES, tenant_id, age, after, limit)


async def _remove(
    connection: AsyncConnection, statement: TextClause, tenant_id: str, age: timedelta, after: str, limit: int
) -> Removed:
    values = {"tenant_id": tenant_id, "age": age, "after": after, "limit": limit}
    row = (await connection.execute(statement, values)).one()
    return Removed(row.runs, row.last or after, row.is_all)
