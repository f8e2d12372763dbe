"""Calls of a client's own tools, as far as the client has a part in them: what it may offer, and what it brings back.

Whoever calls these has locked the conversation.
"""

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import canonical, outcome_content
from holdfast.domain.client_tools import ClientOutput, clashing
from holdfast.domain.errors import Conflict, InvalidInput
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import OPEN
from holdfast.domain.tools import ToolCall, ToolCallStatus
from holdfast.store import agents, audit, runs, tool_calls


async def check_tools(connection: AsyncConnection, tenant_id: str, message: NewMessage, version: int) -> None:
    """Check that no tool which a message brings is one that the agent's policy rules on.

    Raises:
        InvalidInput: one is.
    """
    agent = await agents.load(connection, tenant_id, message.agent, version)
    name = clashing(message.client_tools, [rule.pattern for rule in agent.tools])
    if name is not None:
        raise InvalidInput("tools", f"The agent {agent.name!r} has rules of its own for {name!r}; take another name.")


async def take_outputs(
    connection: AsyncConnection, caller: Caller, message: NewMessage, newest_run_id: str | None
) -> None:
    """Store what a message brings for calls of its conversation; each once, and the same again changes nothing.

    `newest_run_id`: the run that answers the conversation's newest message, whose calls alone are waited for. Where a
    message was queued before a call was made, its run has told the model that there is no output.

    Raises:
        InvalidInput: a call is none of a client's in this conversation, or not of the caller's.
        Conflict: it was answered otherwise, or the conversation has gone on without it, or its run goes on; or the
            message brings nothing that was not there before.
    """
    are_new = [await _take(connection, caller, message, output, newest_run_id) for output in message.outputs]
    if not any(are_new) and not message.text.strip():
        raise Conflict("These outputs were taken before; send them once, or something new with them.")


async def _take(
    connection: AsyncConnection, caller: Caller, message: NewMessage, output: ClientOutput, newest_run_id: str | None
) -> bool:
    """Whether the output is new."""
    call = await _find(connection, caller, message, output)
    if call.status is ToolCallStatus.SUCCEEDED:
        if call.result != output.result:
            raise Conflict(f"The call {call.tool_call_id!r} has another output already.")
        return False
    if call.status is not ToolCallStatus.APPROVED:
        raise Conflict(f"The call {call.tool_call_id!r} takes no output any more: it is {call.status}.")
    if call.run_id != newest_run_id:
        raise Conflict(f"The call {call.tool_call_id!r} takes no output any more: the conversation has gone on.")
    await _store(connection, caller, call, output.result)
    return True


async def _find(connection: AsyncConnection, caller: Caller, message: NewMessage, output: ClientOutput) -> ToolCall:
    tenant_id, view = caller.tenant_id, caller.view(Permission.MESSAGES_SEND)
    call = await tool_calls.find_any(connection, tenant_id, output.tool_call_id, view)
    run = None if call is None or not call.by_client else await runs.get(connection, tenant_id, call.run_id)
    if call is None or run is None or run.conversation_id != message.conversation_id:
        raise InvalidInput("input", f"No call {output.tool_call_id!r} of a tool of yours is in this conversation.")
    if run.status in OPEN:
        raise Conflict(f"The call {output.tool_call_id!r} takes no output yet: its run has not ended.")
    return call


async def _store(connection: AsyncConnection, caller: Caller, call: ToolCall, result: str) -> None:
    tenant_id = caller.tenant_id
    dispatched = replace(call, attempts=await tool_calls.dispatch(connection, tenant_id, call))
    status = ToolCallStatus.SUCCEEDED
    await tool_calls.settle(connection, tenant_id, dispatched, status=status, result=result, error=None)
    handed_over = audit.Entry(
        kind="tool_call",
        outcome=ToolCallStatus.DISPATCHED,
        run_id=call.run_id,
        step=call.step,
        subject_id=call.tool_call_id,
        tool=call.tool,
        attempt=dispatched.attempts,
        person=caller.person,
        content={"arguments": canonical(call.arguments or {})},
    )
    content = {"outcome": outcome_content(result, None)}
    answered = replace(handed_over, outcome=status, latency_ms=0, content=content)
    await audit.append(connection, tenant_id, handed_over, answered)
