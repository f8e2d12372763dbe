"""The outbox: words to Temporal that were committed with what they tell of, and wait until somebody has heard them.

`start` waits until the run's workflow has begun its turn, `decided` until the workflow has read the decision; whoever
reads removes the row in the same transaction. What is still here after a while was lost on the way, and is said again
by `holdfast.services.relay`. A word said twice does no harm: a workflow's id starts it once, and a signal only wakes.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ADD_DECIDED = text("""
INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, subject_id)
SELECT tenant_id, 'decided', :workflow_id, run_id, confirmation_id FROM confirmations
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id
""")

_HEARD_START = text("DELETE FROM outbox WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'start'")

_HEARD_DECISION = text("""
DELETE FROM outbox
WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'decided' AND subject_id = :confirmation_id
""")

_OVERDUE = text("""
SELECT tenant_id, outbox_id, kind, workflow_id, run_id, subject_id FROM outbox
WHERE created_at < clock_timestamp() - CAST(:age AS interval)
ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
""")

_REMOVE = text("DELETE FROM outbox WHERE outbox_id = ANY(:outbox_ids)")


@dataclass(frozen=True)
class Word:
    """One word to Temporal: start this run's workflow, or wake it for this confirmation."""

    tenant_id: str
    outbox_id: int
    kind: str
    workflow_id: str
    run_id: str
    subject_id: str | None


async def add_decided(connection: AsyncConnection, tenant_id: str, confirmation_id: str, workflow_id: str) -> None:
    """Have the workflow woken for a decision."""
    values = {"tenant_id": tenant_id, "confirmation_id": confirmation_id, "workflow_id": workflow_id}
    await connection.execute(_ADD_DECIDED, values)


async def heard_start(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run's workflow has started."""
    await connection.execute(_HEARD_START, {"tenant_id": tenant_id, "run_id": run_id})


async def heard_decision(connection: AsyncConnection, tenant_id: str, run_id: str, confirmation_id: str) -> None:
    """The workflow has read the decision."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "run_id": run_id, "confirmation_id": confirmation_id}
    await connection.execute(_HEARD_DECISION, values)


async def overdue(connection: AsyncConnection, age: timedelta, limit: int) -> list[Word]:
    """Words of every tenant older than `age`, locked, so that no two relays say the same one at once."""
    rows = await connection.execute(_OVERDUE, {"age": age, "limit": limit})
    return [Word(**row._mapping) for row in rows]


async def remove(connection: AsyncConnection, words: list[Word]) -> None:
    """Remove words that Temporal has acknowledged."""
    await connection.execute(_REMOVE, {"outbox_ids": [word.outbox_id for word in words]})
