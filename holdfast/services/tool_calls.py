"""Tool calls for those who look after them: which have an unknown outcome, and what a person says became of them."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import outcome_content
from holdfast.domain.confirmations import Confirmation, ConfirmationStatus, Resolution
from holdfast.domain.errors import Conflict, InvalidInput, NotFound
from holdfast.domain.events import tool_call_now
from holdfast.domain.permissions import Caller, Permission, View
from holdfast.domain.policy import rule_on
from holdfast.domain.storable import is_storable
from holdfast.domain.tools import Declaration, ToolCall, ToolCallStatus
from holdfast.services.confirmation_endings import record, tell_decided
from holdfast.services.confirmations import Asking, check_right, roles_of_token, wake
from holdfast.services.refusals import Asked, recording_refusals
from holdfast.store import agents, audit, confirmations, event_log, outbox, runs, tool_calls
from holdfast.store.engine import Database
from holdfast.temporal.client import MessageWorkflows

_STATUS = {
    Resolution.COMMITTED: ToolCallStatus.SUCCEEDED,
    Resolution.FAILED: ToolCallStatus.FAILED,
    Resolution.RUN_AGAIN: ToolCallStatus.APPROVED,
}

#: Why a person knows, in characters at most.
MAX_EVIDENCE_CHARACTERS = 2000


@dataclass(frozen=True)
class Resolved:
    """What a person says became of a call. `evidence`: how they know; `result`: what the model is to see of it."""

    resolution: Resolution
    evidence: str
    result: Any = None


class ToolCalls:
    """Reads tool calls, and settles unknown outcomes."""

    def __init__(self, database: Database, workflows: MessageWorkflows) -> None:
        self._database = database
        self._workflows = workflows

    async def page(
        self, caller: Caller, *, status: ToolCallStatus | None, after: str | None, limit: int
    ) -> list[ToolCall]:
        """A page of the calls that the caller sees, oldest first."""
        tenant_id, view = caller.tenant_id, caller.view(Permission.TOOL_CALLS_READ)
        async with self._database.tenant(tenant_id) as connection:
            return await tool_calls.page(connection, tenant_id, view, status=status, after=after, limit=limit)

    async def get(self, caller: Caller, tool_call_id: str) -> ToolCall:
        """One call.

        Raises:
            NotFound: the caller sees none with this id.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            return await _find(connection, caller.tenant_id, tool_call_id, caller.view(Permission.TOOL_CALLS_READ))

    async def resolve(self, caller: Caller, tool_call_id: str, resolved: Resolved) -> ToolCall:
        """Settle an unknown outcome. The same word of the same person again answers alike.

        What happened, or did not, can be said at any time. That a call is to run again can be said only while its run
        waits for it.

        Raises:
            NotFound: the caller may settle no such call.
            Forbidden: the person may not decide of this call.
            InvalidInput: the result can't be stored.
            Conflict: the outcome is not unknown, or its run waits no longer for it to run again.
        """
        async with recording_refusals(self._database, caller, Asked(resolved.resolution, tool_call_id)) as asking:
            return await self._resolve(caller, tool_call_id, resolved, asking)

    async def _resolve(self, caller: Caller, tool_call_id: str, resolved: Resolved, asking: Asked) -> ToolCall:
        if not is_storable([resolved.result, resolved.evidence]):
            raise InvalidInput("result", "It holds a NUL or half a surrogate pair, or is nested too deeply.")
        tenant_id, view = caller.tenant_id, caller.view(Permission.TOOL_CALLS_RESOLVE)
        async with self._database.tenant(tenant_id) as connection:
            call = await _find(connection, tenant_id, tool_call_id, view)
            asking.run_id = call.run_id
            await runs.lock(connection, tenant_id, call.run_id)
            asked = await confirmations.outcome_asked(connection, tenant_id, tool_call_id)
            await _check_right(connection, caller, call, asked)
            if asked is not None and _is_repeat(asked, caller, call, resolved):
                return call
            workflow = await _decide(connection, caller, call, asked, resolved)
            call = await _find(connection, tenant_id, tool_call_id, view)
        if workflow is not None and asked is not None:
            await wake(self._workflows, workflow, asked.confirmation_id)
        return call


async def _decide(
    connection: AsyncConnection, caller: Caller, call: ToolCall, asked: Confirmation | None, resolved: Resolved
) -> str | None:
    """Settle the question, if one is pending, and the call; answers with the workflow that waits for it."""
    tenant_id = caller.tenant_id
    if call.status is not ToolCallStatus.AMBIGUOUS:
        raise Conflict(f"The outcome of this call is not unknown: it has {call.status}.")
    workflow = None
    verdict = None if asked is None else _verdict(caller, asked, resolved)
    if (
        asked is not None
        and verdict is not None
        and await confirmations.decide(connection, tenant_id, asked.confirmation_id, verdict)
    ):
        await record(connection, tenant_id, asked, verdict.status, verdict, verdict.decided_via)
        await tell_decided(connection, tenant_id, asked, verdict)
        workflow = await confirmations.workflow_of(connection, tenant_id, asked.confirmation_id)
        await confirmations.mark_run_going_on(connection, tenant_id, call.run_id)
        await outbox.add_decided(connection, tenant_id, asked.confirmation_id, workflow)
    elif resolved.resolution is Resolution.RUN_AGAIN:
        raise Conflict("The run does not wait for this call any more, so it can't be run again.")
    stored = await tool_calls.resolve(
        connection,
        tenant_id,
        call.tool_call_id,
        status=_STATUS[resolved.resolution],
        result=_result(resolved),
        error=_error(resolved),
    )
    if not stored:
        raise Conflict("The outcome of this call is not unknown any more.")
    await _record(connection, caller, call, resolved)
    told = tool_call_now(
        call.tool_call_id,
        call.tool,
        _STATUS[resolved.resolution],
        result=_result(resolved),
        error=_error(resolved),
    )
    await event_log.append(connection, tenant_id, call.run_id, *told)
    return workflow


def _verdict(caller: Caller, asked: Confirmation, resolved: Resolved) -> confirmations.Verdict:
    return confirmations.Verdict(
        status=ConfirmationStatus.RESOLVED,
        decision=resolved.resolution,
        arguments_digest=asked.arguments_digest,
        decided_by=caller.person,
        decided_via="api",
        decided_roles=roles_of_token(caller, asked, Permission.TOOL_CALLS_RESOLVE),
        reason=resolved.evidence,
    )


def _result(resolved: Resolved) -> str | None:
    if resolved.resolution is not Resolution.COMMITTED:
        return None
    if resolved.result is not None:
        return json.dumps(resolved.result, ensure_ascii=False)
    return json.dumps({"note": "A person found that this call took effect."})


def _error(resolved: Resolved) -> str | None:
    if resolved.resolution is not Resolution.FAILED:
        return None
    return "A person found that this call did not take effect."


async def _check_right(connection: AsyncConnection, caller: Caller, call: ToolCall, asked: Confirmation | None) -> None:
    """Check that a person may settle a call: as they were asked, or as its agent's policy would ask them.

    Nobody is asked of a call that was cut off with its run.
    """
    if asked is not None:
        return check_right(caller, asked)
    run = await runs.get(connection, caller.tenant_id, call.run_id)
    agent = await agents.load(connection, caller.tenant_id, run.agent, run.agent_version)
    asking = rule_on(agent, call.tool, Declaration(), call.arguments or {}).asking
    return check_right(
        caller, Asking(asking.approvers, four_eyes=asking.four_eyes, requested_by=run.requested_by, sent_by=run.sent_by)
    )


def _is_repeat(asked: Confirmation, caller: Caller, call: ToolCall, resolved: Resolved) -> bool:
    said = (asked.decision, asked.decided_by, asked.reason)
    is_same_result = resolved.resolution is not Resolution.COMMITTED or call.result == _result(resolved)
    return said == (resolved.resolution, caller.person, resolved.evidence) and is_same_result


async def _find(connection: AsyncConnection, tenant_id: str, tool_call_id: str, view: View) -> ToolCall:
    call = await tool_calls.find_any(connection, tenant_id, tool_call_id, view)
    if call is None:
        raise NotFound("tool call", tool_call_id)
    return call


async def _record(connection: AsyncConnection, caller: Caller, call: ToolCall, resolved: Resolved) -> None:
    entry = audit.Entry(
        kind="tool_call",
        outcome=_STATUS[resolved.resolution],
        run_id=call.run_id,
        step=call.step,
        subject_id=call.tool_call_id,
        tool=call.tool,
        person=caller.person,
        detail=f"resolved: {resolved.resolution}",
        via="api",
        attempt=call.attempts,
        content={"evidence": resolved.evidence, "outcome": outcome_content(_result(resolved), _error(resolved))},
    )
    await audit.append(connection, caller.tenant_id, entry)
