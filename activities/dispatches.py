"""Handing out a tool call: whether it may be run, and the record that it is."""

from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.settlements import Settlement, entry, outcome_entry
from holdfast.domain.audit import SUPERSEDED, canonical
from holdfast.domain.confirmations import arguments_digest
from holdfast.domain.events import tool_call_now
from holdfast.domain.messages import OUTCOME_UNKNOWN
from holdfast.domain.steps import CallRef, ToolOutcome
from holdfast.domain.tools import ToolCall, ToolCallStatus
from holdfast.store import audit, event_log, switches, tool_calls
from holdfast.tools.registry import Tool

#: How often a call is handed out at most. One whose worker dies each time may well be what kills it.
MAX_DISPATCHES = 10

#: Added to a tool's timeout before its absence is probed: a worker that lives on cuts it by then.
_PROBE_MARGIN = timedelta(seconds=2)


@dataclass(frozen=True)
class Reserved:
    """A call that may be run now, by this dispatch alone."""

    call: ToolCall
    tool: Tool


async def dispatch(connection: AsyncConnection, reference: CallRef, call: ToolCall, tool: Tool) -> Reserved:
    """Hand out a locked call once more; on record, that nothing will be heard of a dispatch before this one."""
    dispatched = replace(call, attempts=await tool_calls.dispatch(connection, reference.tenant_id, call))
    intent = replace(
        entry(reference, dispatched, ToolCallStatus.DISPATCHED),
        content={"arguments": canonical(call.arguments or {})},
    )
    is_again = call.status is ToolCallStatus.DISPATCHED
    before = [entry(reference, call, SUPERSEDED)] if is_again else []
    await audit.append(connection, reference.tenant_id, *before, intent)
    return Reserved(replace(dispatched, status=ToolCallStatus.DISPATCHED), tool)


async def may_run_again(connection: AsyncConnection, reference: CallRef, call: ToolCall) -> bool:
    """Whether a call that was handed out, and may be repeated, is to be handed out again."""
    if call.attempts >= MAX_DISPATCHES:
        return False
    return not await switches.holds_back(connection, reference.tenant_id, call.run_id)


async def time_to_probe(
    connection: AsyncConnection, reference: CallRef, call: ToolCall, tool: Tool | None
) -> timedelta:
    """How long to wait before a call's tool is asked what became of it."""
    if tool is None or tool.declaration.probe is None:
        return timedelta(0)
    since = await tool_calls.dispatched_for(connection, reference.tenant_id, call.tool_call_id)
    return max(timedelta(seconds=call.terms.timeout_s) + _PROBE_MARGIN - since, timedelta(0))


async def obstacle(connection: AsyncConnection, reference: CallRef, call: ToolCall, tool: Tool | None) -> str | None:
    """Why an approved call must not run after all; None, with its approval used up, when it may."""
    if tool is None:
        return f"There is no tool {call.tool!r} any more. {_was_run(call)}"
    if await switches.holds_back(connection, reference.tenant_id, call.run_id):
        return f"The run is being stopped. {_was_run(call)}"
    digest = arguments_digest(
        tenant_id=reference.tenant_id,
        run_id=call.run_id,
        tool_call_id=call.tool_call_id,
        tool=tool.name,
        schema_digest=tool.schema_digest,
        arguments=call.arguments or {},
    )
    approved = digest == call.arguments_digest
    if approved and (call.confirmation_id is not None or call.attempts > 0):
        approved = await tool_calls.use_approval(connection, reference.tenant_id, call, digest)
    return None if approved else f"What would run is not what was approved. {_was_run(call)}"


def _was_run(call: ToolCall) -> str:
    # A person wanted it run again, and that can't be. What the dispatch before did is as unknown as ever.
    return f"It was not run again. {OUTCOME_UNKNOWN}" if call.attempts else "It was not run."


async def deny(connection: AsyncConnection, reference: CallRef, call: ToolCall, error: str) -> ToolOutcome:
    """Settle a call that must not run."""
    denied = ToolCallStatus.AMBIGUOUS if call.attempts else ToolCallStatus.DENIED
    await tool_calls.move(
        connection,
        reference.tenant_id,
        call.tool_call_id,
        before=ToolCallStatus.APPROVED,
        to=denied,
        error=error,
    )
    denial = outcome_entry(reference, call, Settlement(denied, error=error), latency_ms=0)
    await audit.append(connection, reference.tenant_id, denial)
    told = tool_call_now(call.tool_call_id, call.tool, denied, error=error)
    await event_log.append(connection, reference.tenant_id, call.run_id, *told)
    return ToolOutcome(denied)
