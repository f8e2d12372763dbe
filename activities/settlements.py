"""What became of a tool call that was handed out: stored once, by the dispatch whose word counts, and on record."""

from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import outcome_content
from holdfast.domain.messages import OUTCOME_UNKNOWN
from holdfast.domain.steps import CallRef
from holdfast.domain.tools import ToolCall, ToolCallStatus
from holdfast.services.confirmation_endings import settle_withdrawn
from holdfast.store import audit, confirmations, outbox, runs, tool_calls


@dataclass(frozen=True)
class Settlement:
    """What became of a call: its status then, and the result, or why there is none."""

    status: ToolCallStatus
    result: str | None = None
    error: str | None = None


AMBIGUOUS = Settlement(ToolCallStatus.AMBIGUOUS, error=OUTCOME_UNKNOWN)


async def store(
    connection: AsyncConnection, reference: CallRef, call: ToolCall, settlement: Settlement, latency_ms: int
) -> bool:
    """Store an outcome. False: it is not this dispatch's to say any more, and nothing was changed."""
    tenant_id = reference.tenant_id
    await runs.lock(connection, tenant_id, call.run_id)
    if settlement.status is not ToolCallStatus.AMBIGUOUS:
        # It may come late, after the outcome was given up as unknown: nobody needs to be asked for it any more.
        if not await _is_its_to_say(connection, tenant_id, call):
            return False
        for asked in await confirmations.withdraw_of_call(connection, tenant_id, call.tool_call_id):
            await settle_withdrawn(connection, tenant_id, asked, "")
            workflow = await confirmations.workflow_of(connection, tenant_id, asked.confirmation_id)
            await outbox.add_decided(connection, tenant_id, asked.confirmation_id, workflow)
    stored = await tool_calls.settle(
        connection,
        tenant_id,
        call,
        status=settlement.status,
        result=settlement.result,
        error=settlement.error,
    )
    if stored:
        await audit.append(connection, tenant_id, outcome_entry(reference, call, settlement, latency_ms))
    return stored


async def _is_its_to_say(connection: AsyncConnection, tenant_id: str, call: ToolCall) -> bool:
    stands = await tool_calls.find(connection, tenant_id, call.tool_call_id)
    return stands.attempts == call.attempts


def entry(reference: CallRef, call: ToolCall, outcome: str) -> audit.Entry:
    """What goes on record of a dispatch of a call."""
    return audit.Entry(
        kind="tool_call",
        outcome=outcome,
        run_id=reference.run_id,
        step=call.step,
        subject_id=call.tool_call_id,
        tool=call.tool,
        attempt=call.attempts,
    )


def outcome_entry(reference: CallRef, call: ToolCall, settlement: Settlement, latency_ms: int) -> audit.Entry:
    """The same of a call that is settled."""
    return replace(
        entry(reference, call, settlement.status),
        latency_ms=latency_ms,
        content={"outcome": outcome_content(settlement.result, settlement.error)},
    )
