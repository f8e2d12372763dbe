"""Confirmations: exactly one of a decision and the deadline wins, by compare-and-set on the row.

Nobody is answered before the row is set, and whoever comes second reads what stands there. `decided_at <= deadline` is
judged by PostgreSQL's clock alone, so that no two clocks can disagree about who was in time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.confirmations import Confirmation, ConfirmationStatus, Decision
from holdfast.domain.ids import workflow_id
from holdfast.store.tables import confirmations

_REQUEST = text("""
INSERT INTO confirmations (tenant_id, confirmation_id, tool_call_id, run_id, conversation_id, agent, tool, arguments,
                           arguments_digest, rule, requested_by, deadline, on_deadline)
SELECT t.tenant_id, :confirmation_id, t.tool_call_id, t.run_id, r.conversation_id, r.agent, t.tool, t.arguments,
       t.arguments_digest, t.rule, r.requested_by, clock_timestamp() + :deadline, :on_deadline
FROM tool_calls t JOIN runs r ON r.tenant_id = t.tenant_id AND r.run_id = t.run_id
WHERE t.tenant_id = :tenant_id AND t.tool_call_id = :tool_call_id
ON CONFLICT (tenant_id, tool_call_id) DO NOTHING
""")

_DECIDE = text("""
UPDATE confirmations SET status = :status, decision = :decision, decided_by = :decided_by, decided_via = :decided_via,
                         decided_at = clock_timestamp(), reason = :reason
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending'
  AND arguments_digest = :arguments_digest AND deadline > clock_timestamp()
RETURNING confirmation_id
""")

# Also where the deadline's timer fired a moment before PostgreSQL's clock reached it: the timer has then won the race.
_EXPIRE = text("""
UPDATE confirmations SET status = 'expired', decided_via = 'deadline', decided_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending'
RETURNING confirmation_id
""")

_WITHDRAW = text("""
UPDATE confirmations SET status = 'withdrawn', decided_via = 'run ended', decided_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'pending'
RETURNING *
""")

_IS_OVERDUE = text("""
SELECT deadline <= clock_timestamp() FROM confirmations
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id
""")

# Whether the run waits depends on other confirmations of it, which other transactions may be changing: each locks the
# run first, in a statement of its own, so that the next statement sees what the one before has committed.
_LOCK_RUN = text("SELECT FROM runs WHERE tenant_id = :tenant_id AND run_id = :run_id FOR UPDATE")

# Whoever waits for the reply learns that a person is asked first.
_MARK_WAITING = text("""
WITH waiting AS (
  UPDATE runs SET status = 'requires_confirmation'
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'running' RETURNING run_id
)
SELECT pg_notify('holdfast_runs', run_id) FROM waiting
""")

_MARK_RUNNING_AGAIN = text("""
UPDATE runs SET status = 'running'
WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'requires_confirmation'
  AND NOT EXISTS (
    SELECT FROM confirmations WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'pending'
  )
""")

_WORKFLOW = text("""
SELECT r.agent, r.message_id FROM confirmations c JOIN runs r ON r.tenant_id = c.tenant_id AND r.run_id = c.run_id
WHERE c.tenant_id = :tenant_id AND c.confirmation_id = :confirmation_id
""")


@dataclass(frozen=True)
class Verdict:
    """A decision about to be stored. `decided_via` names the way it came: api."""

    decision: Decision
    arguments_digest: str
    decided_by: str
    decided_via: str
    reason: str | None


async def request(
    connection: AsyncConnection,
    tenant_id: str,
    tool_call_id: str,
    *,
    confirmation_id: str,
    deadline: timedelta,
    on_deadline: str,
) -> tuple[str, datetime]:
    """Ask for a call's confirmation, once: asked again, the first one stands. Answers with its id and deadline."""
    values = {"confirmation_id": confirmation_id, "deadline": deadline, "on_deadline": on_deadline}
    await connection.execute(_REQUEST, {"tenant_id": tenant_id, "tool_call_id": tool_call_id, **values})
    query = select(confirmations.c.confirmation_id, confirmations.c.deadline).where(
        confirmations.c.tenant_id == tenant_id, confirmations.c.tool_call_id == tool_call_id
    )
    row = (await connection.execute(query)).one()
    return row.confirmation_id, row.deadline


async def decide(connection: AsyncConnection, tenant_id: str, confirmation_id: str, verdict: Verdict) -> bool:
    """Store a decision. False: it was not pending any more, or too late, or of other arguments."""
    values = {**vars(verdict), "status": verdict.decision.status}
    values |= {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    return (await connection.execute(_DECIDE, values)).one_or_none() is not None


async def expire(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> bool:
    """Expire a confirmation. False: it was decided, or expired, before."""
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    return (await connection.execute(_EXPIRE, of_one)).one_or_none() is not None


async def withdraw(connection: AsyncConnection, tenant_id: str, run_id: str) -> list[Confirmation]:
    """Withdraw what is pending of a run; answers with what was."""
    rows = await connection.execute(_WITHDRAW, {"tenant_id": tenant_id, "run_id": run_id})
    return [_from_row(row) for row in rows]


async def is_overdue(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> bool:
    """Whether the deadline has passed, by PostgreSQL's clock."""
    return bool(await connection.scalar(_IS_OVERDUE, {"tenant_id": tenant_id, "confirmation_id": confirmation_id}))


async def mark_run_waiting(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run waits for a person."""
    of_run = {"tenant_id": tenant_id, "run_id": run_id}
    await connection.execute(_LOCK_RUN, of_run)
    await connection.execute(_MARK_WAITING, of_run)


async def mark_run_going_on(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run goes on, unless another of its confirmations is pending."""
    of_run = {"tenant_id": tenant_id, "run_id": run_id}
    await connection.execute(_LOCK_RUN, of_run)
    await connection.execute(_MARK_RUNNING_AGAIN, of_run)


async def workflow_of(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> str:
    """The workflow that waits for a confirmation."""
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    row = (await connection.execute(_WORKFLOW, of_one)).one()
    return workflow_id(tenant_id, row.agent, row.message_id)


async def find(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> Confirmation | None:
    """A confirmation; None: there is none with this id in this tenant."""
    query = select(confirmations).where(
        confirmations.c.tenant_id == tenant_id, confirmations.c.confirmation_id == confirmation_id
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def page(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    status: ConfirmationStatus | None,
    run_id: str | None,
    after: str | None,
    limit: int,
) -> list[Confirmation]:
    """A page of confirmations, oldest first, from the one after `after` on."""
    query = (
        select(confirmations)
        .where(confirmations.c.tenant_id == tenant_id)
        .order_by(confirmations.c.confirmation_id)
        .limit(limit)
    )
    if status is not None:
        query = query.where(confirmations.c.status == status)
    if run_id is not None:
        query = query.where(confirmations.c.run_id == run_id)
    if after is not None:
        query = query.where(confirmations.c.confirmation_id > after)
    return [_from_row(row) for row in await connection.execute(query)]


def _from_row(row: Any) -> Confirmation:
    return Confirmation(
        confirmation_id=row.confirmation_id,
        tool_call_id=row.tool_call_id,
        run_id=row.run_id,
        conversation_id=row.conversation_id,
        agent=row.agent,
        tool=row.tool,
        arguments=row.arguments,
        arguments_digest=row.arguments_digest,
        rule=row.rule,
        requested_by=row.requested_by,
        deadline=row.deadline,
        on_deadline=row.on_deadline,
        status=ConfirmationStatus(row.status),
        decision=None if row.decision is None else Decision(row.decision),
        decided_by=row.decided_by,
        decided_via=row.decided_via,
        decided_at=row.decided_at,
        reason=row.reason,
        created_at=row.created_at,
    )
