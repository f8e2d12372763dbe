"""Deliveries: begun, postponed, settled once, replayed.

The trigger on `events` adds them, with a word in the outbox that has their workflow started. The word stays until the
delivery is settled, and is said again now and then: should the workflow have been terminated from outside, another
takes its place. A delivery belongs to one workflow, which its row names, and what any other makes of it counts for
nothing: so a replay, which has a workflow of its own, can begin while an attempt before it is still on its way.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.deliveries import Delivery, DeliveryRecord, DeliveryStatus
from holdfast.domain.steps import DeliveryRef
from holdfast.store import changes
from holdfast.store.changes import OUTBOX, Change

_OWN = "tenant_id = :tenant_id AND delivery_id = :delivery_id AND workflow_id = :workflow_id AND status = 'pending'"

# A delivery without its event has nothing to tell any more. Its day begins with its first attempt: it may have waited
# long for a worker, and is not to be given up after one.
_BEGIN = text(f"""
WITH begun AS (
  UPDATE deliveries
  SET attempts = attempts + 1, next_attempt_at = NULL,
      pending_since = CASE attempts WHEN 0 THEN clock_timestamp() ELSE pending_since END
  WHERE {_OWN}
  RETURNING tenant_id, delivery_id, kind, target_id, run_id, seq, type, attempts, pending_since
)
SELECT begun.*, r.conversation_id, r.agent, CAST(e.data AS text) AS data, e.created_at AS happened_at
FROM begun
LEFT JOIN runs r ON r.tenant_id = begun.tenant_id AND r.run_id = begun.run_id
LEFT JOIN events e ON e.tenant_id = begun.tenant_id AND e.run_id = begun.run_id AND e.seq = begun.seq
""")

_POSTPONE = text(f"""
UPDATE deliveries
SET next_attempt_at = clock_timestamp() + CAST(:wait AS interval), last_error = coalesce(:error, last_error)
WHERE {_OWN}
""")

_HOLD = text(f"""
UPDATE deliveries
SET next_attempt_at = clock_timestamp() + CAST(:wait AS interval), last_error = :why, pending_since = clock_timestamp()
WHERE {_OWN}
""")

_SETTLE = text(f"""
UPDATE deliveries
SET status = :status, last_error = :error, next_attempt_at = NULL, settled_at = clock_timestamp()
WHERE {_OWN} RETURNING delivery_id
""")

_HEARD = text("""
DELETE FROM outbox
WHERE tenant_id = :tenant_id AND kind = 'deliver' AND workflow_id = :workflow_id AND subject_id = :delivery_id
""")

_REPLAY = text("""
WITH replayed AS (
  UPDATE deliveries
  SET status = 'pending', attempts = 0, replays = replays + 1, last_error = NULL, next_attempt_at = NULL,
      settled_at = NULL, pending_since = clock_timestamp(),
      workflow_id = concat_ws(':', tenant_id, kind, delivery_id || '-' || replays + 1)
  WHERE tenant_id = :tenant_id AND target_id = :target_id AND delivery_id = :delivery_id
  RETURNING *
), heard AS (
  DELETE FROM outbox o USING replayed r
  WHERE o.tenant_id = r.tenant_id AND o.run_id = r.run_id AND o.kind = 'deliver' AND o.subject_id = r.delivery_id
), told AS (
  INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, subject_id, due_at)
  SELECT tenant_id, 'deliver', workflow_id, run_id, delivery_id, clock_timestamp() FROM replayed
)
SELECT * FROM replayed
""")

_PAGE = text("""
SELECT * FROM deliveries
WHERE tenant_id = :tenant_id AND target_id = :target_id AND (CAST(:after AS text) IS NULL OR delivery_id < :after)
  AND (CAST(:status AS text) IS NULL OR status = :status)
ORDER BY delivery_id DESC LIMIT :limit
""")

_REMOVE_OF = text("DELETE FROM deliveries WHERE tenant_id = :tenant_id AND target_id = :target_id")


@dataclass(frozen=True)
class Begun:
    """An attempt that has begun: number `attempts`, of a time that counts from `pending_since` on. `delivery` None: its
    event is gone."""

    attempts: int
    pending_since: datetime
    delivery: Delivery | None


async def begin(connection: AsyncConnection, own: DeliveryRef) -> Begun | None:
    """Begin an attempt. None: the delivery is settled, or another workflow's, or removed."""
    row = (await connection.execute(_BEGIN, vars(own))).one_or_none()
    return None if row is None else Begun(row.attempts, row.pending_since, _delivery(row))


async def postpone(connection: AsyncConnection, own: DeliveryRef, wait: timedelta, error: str | None = None) -> None:
    """Say when it is tried again, and why the last attempt failed; None: that stays as it is."""
    await connection.execute(_POSTPONE, {**vars(own), "wait": wait, "error": error})


async def hold(connection: AsyncConnection, own: DeliveryRef, wait: timedelta, why: str) -> None:
    """Hold a delivery back for a while, which does not count: it has all its time afterwards."""
    await connection.execute(_HOLD, {**vars(own), "wait": wait, "why": why})


async def settle(
    connection: AsyncConnection, own: DeliveryRef, status: DeliveryStatus, error: str | None = None
) -> bool:
    """Settle a delivery, once. False: it was before, or is another workflow's."""
    settled = (await connection.execute(_SETTLE, {**vars(own), "status": status, "error": error})).one_or_none()
    await heard(connection, own)
    return settled is not None


async def heard(connection: AsyncConnection, own: DeliveryRef) -> None:
    """The workflow has nothing left to do: nobody needs to start it again."""
    await connection.execute(_HEARD, vars(own))


async def replay(
    connection: AsyncConnection, tenant_id: str, target_id: str, delivery_id: str
) -> DeliveryRecord | None:
    """Have a delivery told again, by a workflow of its own, whatever became of it. None: there is none."""
    values = {"tenant_id": tenant_id, "target_id": target_id, "delivery_id": delivery_id}
    row = (await connection.execute(_REPLAY, values)).one_or_none()
    if row is None:
        return None
    changes.note(connection, Change(OUTBOX))
    return _record(row)


async def page(
    connection: AsyncConnection,
    tenant_id: str,
    target_id: str,
    *,
    status: DeliveryStatus | None,
    after: str | None,
    limit: int,
) -> list[DeliveryRecord]:
    """Deliveries to a target, newest first."""
    values = {"tenant_id": tenant_id, "target_id": target_id, "status": status, "after": after, "limit": limit}
    return [_record(row) for row in await connection.execute(_PAGE, values)]


async def remove_of(connection: AsyncConnection, tenant_id: str, target_id: str) -> None:
    """Remove the deliveries to a target, also those that are pending: their workflows find nothing, and end."""
    await connection.execute(_REMOVE_OF, {"tenant_id": tenant_id, "target_id": target_id})


def _delivery(row: Any) -> Delivery | None:
    if row.data is None or row.agent is None:
        return None
    return Delivery(
        tenant_id=row.tenant_id,
        delivery_id=row.delivery_id,
        kind=row.kind,
        target_id=row.target_id,
        run_id=row.run_id,
        conversation_id=row.conversation_id,
        agent=row.agent,
        seq=row.seq,
        type=row.type,
        data=json.loads(row.data),
        happened_at=row.happened_at,
    )


def _record(row: Any) -> DeliveryRecord:
    shown = {name: row._mapping[name] for name in DeliveryRecord.__dataclass_fields__}
    return DeliveryRecord(**{**shown, "status": DeliveryStatus(row.status)})
