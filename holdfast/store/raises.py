"""Confirmations that ask to raise a budget: about a step that it has no room for, and no tool call."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.confirmations import Confirmation, ConfirmationKind
from holdfast.store.confirmations import confirmation_from_row, found_by
from holdfast.store.tables.runs import confirmations

_REQUEST = text("""
INSERT INTO confirmations (tenant_id, confirmation_id, kind, step, run_id, conversation_id, agent, tool, arguments,
                           arguments_digest, rule, requested_by, sent_by, approvers, deadline, on_deadline, remind_at)
SELECT r.tenant_id, :confirmation_id, 'budget', :step, r.run_id, r.conversation_id, r.agent, :tool, :arguments,
       :arguments_digest, :rule, r.requested_by, r.sent_by, :approvers, moment + :deadline, 'reject',
       moment + :remind_after
FROM runs r CROSS JOIN LATERAL (SELECT clock_timestamp() AS moment) now
WHERE r.tenant_id = :tenant_id AND r.run_id = :run_id
""").bindparams(
    bindparam("approvers", type_=ARRAY(Text)),
    bindparam("arguments", type_=JSON),
    bindparam("deadline", type_=Interval),
    bindparam("remind_after", type_=Interval),
)

_PENDING = text("""
SELECT * FROM confirmations WHERE tenant_id = :tenant_id AND status = 'pending' AND kind = 'budget'
""")


@dataclass(frozen=True)
class RaiseQuestion:
    """What a person is to be asked of a budget that has no room for a run's step."""

    confirmation_id: str
    run_id: str
    step: int
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    rule: str
    approvers: tuple[str, ...]
    deadline: timedelta
    remind_after: timedelta | None


async def request(connection: AsyncConnection, tenant_id: str, question: RaiseQuestion) -> Confirmation:
    """Ask a person to raise the budget, where a step is not asking already. Answers with the confirmation."""
    values = {**vars(question), "approvers": list(question.approvers)}
    await connection.execute(_REQUEST, {"tenant_id": tenant_id, **values})
    query = select(confirmations).where(
        confirmations.c.tenant_id == tenant_id, confirmations.c.confirmation_id == question.confirmation_id
    )
    return confirmation_from_row((await connection.execute(query)).one())


async def newest(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> Confirmation | None:
    """What was last asked of the budget for a step, decided or not; None: nothing was."""
    query = (
        select(confirmations)
        .where(
            confirmations.c.tenant_id == tenant_id,
            confirmations.c.run_id == run_id,
            confirmations.c.step == step,
            confirmations.c.kind == ConfirmationKind.BUDGET,
        )
        .order_by(confirmations.c.confirmation_id.desc())
        .limit(1)
    )
    return await found_by(connection, query)


async def pending(connection: AsyncConnection, tenant_id: str) -> list[Confirmation]:
    """What is asked of the tenant's budget right now, for all its runs."""
    return [confirmation_from_row(row) for row in await connection.execute(_PENDING, {"tenant_id": tenant_id})]
