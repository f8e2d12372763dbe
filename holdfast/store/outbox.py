"""The outbox: words to Temporal that were committed with what they tell of, and wait until somebody has heard them.

`start` waits until the run's workflow has begun its turn, `decided` until the workflow has read the decision, `cancel`
until Temporal has taken the request or the run has ended, `freed` until the workflow that waits for the turn was woken;
whoever reads a start or a decision removes the row in the same transaction. What is still here when it is due was lost
on the way, and is said again by `holdfast.services.relay`. A word said twice does no harm: a workflow's id starts it
once, and a signal only wakes.

`deliver` starts a delivery's workflow, at once, since nobody but the relay says it; the row stays until the delivery is
settled (`holdfast.store.deliveries`), and is said again now and then, should the workflow have been terminated.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ADD_DECIDED = text("""
INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, subject_id, due_at)
SELECT tenant_id, 'decided', :workflow_id, run_id, confirmation_id,
       clock_timestamp() + CASE WHEN :is_due THEN interval '0' ELSE interval '2 seconds' END
FROM confirmations
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id
""")

_ADD = text("""
INSERT INTO outbox (tenant_id, kind, workflow_id, run_id) VALUES (:tenant_id, :kind, :workflow_id, :run_id)
""")

_HEARD_START = text("DELETE FROM outbox WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'start'")

_WAITS_TO_START = text(
    "SELECT EXISTS (SELECT FROM outbox WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'start')"
)

_HEARD_DECISION = text("""
DELETE FROM outbox
WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'decided' AND subject_id = :confirmation_id
""")

# Claimed by moving what is due into the future: no row is locked while Temporal is spoken to, and a claim that dies
# with its process runs out.
_CLAIM = text("""
UPDATE outbox SET due_at = clock_timestamp() + CAST(:claimed_for AS interval)
WHERE (tenant_id, outbox_id) IN (
  SELECT tenant_id, outbox_id FROM outbox WHERE due_at <= clock_timestamp()
  ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
RETURNING tenant_id, outbox_id, kind, workflow_id, run_id, subject_id
""")

_REMOVE = text("DELETE FROM outbox WHERE outbox_id = ANY(:outbox_ids)")

_REPEAT = text("""
UPDATE outbox SET due_at = clock_timestamp() + CAST(:after AS interval) WHERE outbox_id = ANY(:outbox_ids)
""")


@dataclass(frozen=True)
class Word:
    """One word to Temporal about a run's workflow: start it, wake it for a confirmation or for the turn, cancel it.

    Or about the workflow of a delivery, the `subject_id`: start it.
    """

    tenant_id: str
    outbox_id: int
    kind: str
    workflow_id: str
    run_id: str
    subject_id: str | None


async def add_decided(
    connection: AsyncConnection, tenant_id: str, confirmation_id: str, workflow_id: str, *, is_due: bool = False
) -> None:
    """Have the workflow woken for a decision; `is_due`: by the relay, at once, since nobody else is saying it."""
    values = {
        "tenant_id": tenant_id,
        "confirmation_id": confirmation_id,
        "workflow_id": workflow_id,
        "is_due": is_due,
    }
    await connection.execute(_ADD_DECIDED, values)


async def add_cancel(connection: AsyncConnection, tenant_id: str, run_id: str, workflow_id: str) -> None:
    """Have the workflow of a run cancelled."""
    values = {"tenant_id": tenant_id, "kind": "cancel", "workflow_id": workflow_id, "run_id": run_id}
    await connection.execute(_ADD, values)


async def add_freed(connection: AsyncConnection, tenant_id: str, run_id: str, workflow_id: str) -> None:
    """Have the workflow of a queued run look for its turn."""
    values = {"tenant_id": tenant_id, "kind": "freed", "workflow_id": workflow_id, "run_id": run_id}
    await connection.execute(_ADD, values)


async def heard_start(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run's workflow has started."""
    await connection.execute(_HEARD_START, {"tenant_id": tenant_id, "run_id": run_id})


async def waits_to_start(connection: AsyncConnection, tenant_id: str, run_id: str) -> bool:
    """Whether the run's workflow may not have been started yet."""
    return bool(await connection.scalar(_WAITS_TO_START, {"tenant_id": tenant_id, "run_id": run_id}))


async def heard_decision(connection: AsyncConnection, tenant_id: str, run_id: str, confirmation_id: str) -> None:
    """The workflow has read the decision."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "run_id": run_id, "confirmation_id": confirmation_id}
    await connection.execute(_HEARD_DECISION, values)


async def claim(connection: AsyncConnection, claimed_for: timedelta, limit: int) -> list[Word]:
    """Words of every tenant that are due, and that nobody else will be given for the time `claimed_for`."""
    rows = await connection.execute(_CLAIM, {"claimed_for": claimed_for, "limit": limit})
    return [Word(**row._mapping) for row in rows]


async def remove(connection: AsyncConnection, words: list[Word]) -> None:
    """Remove words that Temporal has acknowledged."""
    await connection.execute(_REMOVE, {"outbox_ids": [word.outbox_id for word in words]})


async def repeat(connection: AsyncConnection, words: list[Word], after: timedelta) -> None:
    """Have words said again, unless they are removed before."""
    await connection.execute(_REPEAT, {"outbox_ids": [word.outbox_id for word in words], "after": after})
