"""What becomes of a confirmation beside a decision, and what each ending does to its call, to the run and on record.

Whoever calls these has locked the run: see `holdfast.services.confirmations` for the order of locks.
"""

import json

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain import events
from holdfast.domain.audit import canonical, outcome_content
from holdfast.domain.confirmations import Confirmation, ConfirmationKind, ConfirmationStatus, Decision
from holdfast.domain.messages import OUTCOME_UNKNOWN
from holdfast.domain.permissions import WHOLE_TENANT
from holdfast.domain.steps import ConfirmationRequested
from holdfast.domain.tools import ToolCallStatus
from holdfast.store import audit, confirmations, event_log, tool_calls


async def expire_or_escalate(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> bool:
    """The deadline of a confirmation has passed. True: nobody is asked any more; False: further people are."""
    if await confirmations.escalate(connection, tenant_id, confirmation):
        await record(connection, tenant_id, confirmation, "escalated")
        asked = (
            await confirmations.find(connection, tenant_id, confirmation.confirmation_id, WHOLE_TENANT) or confirmation
        )
        event = events.ConfirmationEscalated(asked.confirmation_id, asked.deadline, asked.on_deadline)
        await event_log.append(connection, tenant_id, asked.run_id, event)
        return False
    await expire(connection, tenant_id, confirmation)
    return True


async def expire(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> bool:
    """Expire a pending confirmation and its call. False: it was decided, or expired, before."""
    if not await confirmations.expire(connection, tenant_id, confirmation.confirmation_id):
        return False
    event = events.ConfirmationExpired(confirmation.confirmation_id)
    await event_log.append(connection, tenant_id, confirmation.run_id, event)
    if confirmation.kind is ConfirmationKind.CALL:
        await _move(connection, tenant_id, confirmation, ToolCallStatus.EXPIRED, error=_EXPIRED)
    await go_on(connection, tenant_id, confirmation, ConfirmationStatus.EXPIRED, None)
    return True


async def remind(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> None:
    """Remind the people who are asked, once."""
    if await confirmations.remind(connection, tenant_id, confirmation.confirmation_id):
        await record(connection, tenant_id, confirmation, "reminded")
        event = events.ConfirmationReminded(confirmation.confirmation_id, confirmation.deadline)
        await event_log.append(connection, tenant_id, confirmation.run_id, event)


async def withdraw(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """Withdraw what a run that ends early leaves: nobody shall approve what can't run any more.

    What was dispatched, and not heard of again, is called unknown.
    """
    for confirmation in await confirmations.withdraw_of_run(connection, tenant_id, run_id):
        await settle_withdrawn(connection, tenant_id, confirmation, _RUN_ENDED)
    for left in await tool_calls.withdraw(connection, tenant_id, run_id, _RUN_ENDED):
        told = events.tool_call_now(left.tool_call_id, left.tool, left.status, error=_RUN_ENDED)
        await event_log.append(connection, tenant_id, run_id, *told)
    for left in await tool_calls.abandon(connection, tenant_id, run_id, OUTCOME_UNKNOWN):
        entry = audit.Entry(
            kind="tool_call",
            outcome=left.status,
            run_id=run_id,
            step=left.step,
            subject_id=left.tool_call_id,
            tool=left.tool,
            attempt=left.attempts,
            content={"outcome": outcome_content(None, OUTCOME_UNKNOWN)},
        )
        await audit.append(connection, tenant_id, entry)
        told = events.tool_call_now(left.tool_call_id, left.tool, left.status, error=OUTCOME_UNKNOWN)
        await event_log.append(connection, tenant_id, run_id, *told)


async def withdraw_one(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> None:
    """Withdraw one confirmation, since its run's time is up."""
    for confirmation in await confirmations.withdraw_one(connection, tenant_id, confirmation_id, "run ended"):
        await settle_withdrawn(connection, tenant_id, confirmation, _RUN_ENDED)


async def withdraw_raise(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> None:
    """Withdraw a question for more budget, since the budget is another than the one it was asked of."""
    for withdrawn in await confirmations.withdraw_one(
        connection, tenant_id, confirmation.confirmation_id, "budget changed"
    ):
        await settle_withdrawn(connection, tenant_id, withdrawn, "")


async def settle_withdrawn(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation, error: str) -> None:
    """Carry a withdrawal over to the tool call, the run, the record, and the run's log."""
    event = events.ConfirmationWithdrawn(confirmation.confirmation_id, confirmation.decided_via)
    await event_log.append(connection, tenant_id, confirmation.run_id, event)
    if confirmation.kind is ConfirmationKind.CALL:
        await _move(connection, tenant_id, confirmation, ToolCallStatus.WITHDRAWN, error=error)
    await go_on(connection, tenant_id, confirmation, ConfirmationStatus.WITHDRAWN, None)


_RUN_ENDED = "The run ended before this call could be made. It was not run."
_EXPIRED = "Nobody confirmed this call in time. It was not run; do not repeat it."


async def tell_decided(
    connection: AsyncConnection, tenant_id: str, confirmation: Confirmation, verdict: confirmations.Verdict
) -> None:
    """Tell the run's log what a person decided."""
    event = events.ConfirmationDecided(
        confirmation.confirmation_id, verdict.decision, verdict.reason, verdict.edited_arguments
    )
    await event_log.append(connection, tenant_id, confirmation.run_id, event)


async def settle_call(
    connection: AsyncConnection, tenant_id: str, confirmation: Confirmation, verdict: confirmations.Verdict
) -> None:
    """Carry a decision over to the tool call, with what the model is told of it."""
    match verdict.decision:
        case Decision.APPROVE | Decision.EDIT:
            await _move(connection, tenant_id, confirmation, ToolCallStatus.APPROVED)
        case Decision.RESPOND:
            result = json.dumps({"answer": verdict.reason, "note": _ANSWERED}, ensure_ascii=False)
            await _move(connection, tenant_id, confirmation, ToolCallStatus.REJECTED, result=result)
        case _:
            error = f"A person rejected this call. Reason: {verdict.reason or 'none given'}. {_NOT_RUN}"
            await _move(connection, tenant_id, confirmation, ToolCallStatus.REJECTED, error=error)


_ANSWERED = "A person answered in the tool's place; the tool was not run."
_NOT_RUN = "It was not run; do not repeat it."


async def _move(
    connection: AsyncConnection,
    tenant_id: str,
    confirmation: Confirmation,
    to: ToolCallStatus,
    result: str | None = None,
    error: str | None = None,
) -> None:
    has_moved = await tool_calls.move(
        connection,
        tenant_id,
        confirmation.call,
        before=ToolCallStatus.AWAITING_CONFIRMATION,
        to=to,
        result=result,
        error=error,
    )
    if has_moved:
        told = events.tool_call_now(confirmation.call, confirmation.tool, to, error=error)
        await event_log.append(connection, tenant_id, confirmation.run_id, *told)


async def go_on(
    connection: AsyncConnection,
    tenant_id: str,
    confirmation: Confirmation,
    status: ConfirmationStatus,
    verdict: confirmations.Verdict | None,
) -> None:
    """Let the run go on, unless something else of it waits for a person, and record what became of this."""
    await confirmations.mark_run_going_on(connection, tenant_id, confirmation.run_id)
    # A confirmation that was withdrawn says why; one that nobody decided ended at its deadline.
    via = verdict.decided_via if verdict else confirmation.decided_via or "deadline"
    await record(connection, tenant_id, confirmation, status, verdict, via)


async def record(
    connection: AsyncConnection,
    tenant_id: str,
    confirmation: Confirmation,
    outcome: str,
    verdict: confirmations.Verdict | None = None,
    via: str | None = None,
) -> None:
    """Record what became of a confirmation, and who decided it."""
    entry = audit.Entry(
        kind="confirmation",
        outcome=outcome,
        run_id=confirmation.run_id,
        subject_id=confirmation.confirmation_id,
        tool=confirmation.tool,
        person=verdict.decided_by if verdict else None,
        detail=verdict.decision if verdict else None,
        via=via,
        content=_said(verdict) if verdict else {},
    )
    await audit.append(connection, tenant_id, entry)


def _said(verdict: confirmations.Verdict) -> dict[str, str]:
    said = {} if verdict.reason is None else {"reason": verdict.reason}
    if verdict.edited_arguments is not None:
        said["edited_arguments"] = canonical(verdict.edited_arguments)
    if verdict.decided_roles is not None:
        said["decided_roles"] = canonical(verdict.decided_roles)
    return said


async def record_asked(connection: AsyncConnection, tenant_id: str, asked: Confirmation, step: int | None) -> None:
    """Record that a person is asked, and tell the run's log."""
    entry = audit.Entry(
        kind="confirmation",
        outcome=ConfirmationStatus.PENDING,
        run_id=asked.run_id,
        step=step,
        subject_id=asked.confirmation_id,
        tool=asked.tool,
        detail=asked.rule,
        content={"arguments": canonical(asked.arguments)},
    )
    await audit.append(connection, tenant_id, entry)
    await event_log.append(connection, tenant_id, asked.run_id, events.ConfirmationRequested.of(asked))


def as_requested(confirmation: Confirmation) -> ConfirmationRequested:
    """A confirmation as the workflow waits for it."""
    return ConfirmationRequested(
        confirmation_id=confirmation.confirmation_id,
        deadline=confirmation.deadline,
        remind_at=confirmation.remind_at if confirmation.reminded_at is None else None,
        then=confirmation.on_deadline,
    )
