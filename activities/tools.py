"""Executing a tool call: reserve it in the ledger, run it, settle it.

The danger is the time between the reservation and the outcome. If this process dies there, the effect may have
happened, and the next attempt finds the call `dispatched` with no result. Then:

- a tool that only reads, or is idempotent (`natural`, or `key` with the same key), runs again;
- any other becomes `ambiguous`: it is not run, and the model is told that the outcome is unknown.

A result that can't be stored, because the database is away, is held and stored later: giving up would make it unknown.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from activities.heartbeat import heartbeating
from holdfast.domain.confirmations import arguments_digest
from holdfast.domain.errors import Unavailable
from holdfast.domain.messages import OUTCOME_UNKNOWN
from holdfast.domain.steps import CallRef, ToolOutcome
from holdfast.domain.tools import ToolCall, ToolCallStatus, may_run_again
from holdfast.store import audit, tool_calls
from holdfast.store.engine import Database
from holdfast.tools.registry import Tool, ToolRegistry
from holdfast.tools.run import Outcome, Raised, Returned, TimedOut, ToolRunner, Unknown

log = logging.getLogger(__name__)

#: How long to wait before storing an outcome again, in seconds.
_STORE_AGAIN_S = 0.5


@dataclass(frozen=True)
class _Reserved:
    """A call that may be run now, by this attempt alone."""

    call: ToolCall
    tool: Tool
    attempts: int


@dataclass(frozen=True)
class _Settlement:
    status: ToolCallStatus
    result: str | None = None
    error: str | None = None


class ToolActivities:
    """`execute_tool`."""

    def __init__(self, database: Database, tools: ToolRegistry, runner: ToolRunner) -> None:
        self._database = database
        self._tools = tools
        self._runner = runner

    @activity.defn
    async def execute_tool(self, reference: CallRef) -> ToolOutcome:
        """Run an approved call once, and store what came of it. What the tool raises is an outcome, not an error."""
        async with heartbeating():
            reserved = await self._reserve(reference)
            if isinstance(reserved, ToolOutcome):
                return reserved
            started = time.monotonic()
            outcome = await self._runner.run(
                reserved.tool, reserved.call.arguments or {}, idempotency_key=reference.tool_call_id
            )
            settlement = _settlement(reserved, outcome)
            latency_ms = round((time.monotonic() - started) * 1000)
            return await self._settle_until_stored(reference, reserved, settlement, latency_ms)

    async def _reserve(self, reference: CallRef) -> _Reserved | ToolOutcome:
        async with self._database.tenant(reference.tenant_id) as connection:
            call = await tool_calls.lock(connection, reference.tenant_id, reference.tool_call_id)
            tool = self._tools.get(call.tool)
            if call.status is ToolCallStatus.APPROVED:
                obstacle = await _obstacle(connection, reference, call, tool)
                if obstacle is not None or tool is None:
                    return await _deny(connection, reference, call, obstacle or "")
            elif call.status is ToolCallStatus.DISPATCHED:
                if tool is None or not may_run_again(call.effect, call.idempotency):
                    return await _settle(connection, reference, call, call.attempts, _ambiguous(), latency_ms=0)
            else:
                return ToolOutcome(call.status)
            attempts = await tool_calls.dispatch(connection, reference.tenant_id, reference.tool_call_id)
            return _Reserved(call, tool, attempts)

    async def _settle_until_stored(
        self, reference: CallRef, reserved: _Reserved, settlement: _Settlement, latency_ms: int
    ) -> ToolOutcome:
        while True:
            try:
                async with self._database.tenant(reference.tenant_id) as connection:
                    return await _settle(
                        connection, reference, reserved.call, reserved.attempts, settlement, latency_ms
                    )
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("outcome of %s can't be stored yet: %s", reference.tool_call_id, type(error).__name__)
                await asyncio.sleep(_STORE_AGAIN_S)


async def _obstacle(connection: AsyncConnection, reference: CallRef, call: ToolCall, tool: Tool | None) -> str | None:
    """Why an approved call must not run after all; None, with its approval used up, when it may."""
    if tool is None:
        return f"There is no tool {call.tool!r} any more. It was not run."
    digest = arguments_digest(
        tenant_id=reference.tenant_id,
        run_id=call.run_id,
        tool_call_id=call.tool_call_id,
        tool=tool.name,
        schema_digest=tool.schema_digest,
        arguments=call.arguments or {},
    )
    approved = digest == call.arguments_digest
    if approved and call.confirmation_id is not None:
        approved = await tool_calls.use_approval(connection, reference.tenant_id, call.tool_call_id, digest)
    return None if approved else "What would run is not what was approved. It was not run."


async def _deny(connection: AsyncConnection, reference: CallRef, call: ToolCall, error: str) -> ToolOutcome:
    denied = ToolCallStatus.DENIED
    await tool_calls.move(
        connection,
        reference.tenant_id,
        call.tool_call_id,
        before=ToolCallStatus.APPROVED,
        to=denied,
        error=error,
    )
    await audit.append(connection, reference.tenant_id, _entry(reference, call, denied, latency_ms=0))
    return ToolOutcome(denied)


def _settlement(reserved: _Reserved, outcome: Outcome) -> _Settlement:
    match outcome:
        case Returned(result):
            return _Settlement(ToolCallStatus.SUCCEEDED, result=result)
        case Raised(error):
            return _Settlement(ToolCallStatus.FAILED, error=error)
        case TimedOut(timeout_s) if may_run_again(reserved.call.effect, reserved.call.idempotency):
            return _Settlement(ToolCallStatus.FAILED, error=f"The tool did not answer within {timeout_s:g} s.")
        case Unknown(reason) if may_run_again(reserved.call.effect, reserved.call.idempotency):
            return _Settlement(ToolCallStatus.FAILED, error=reason)
        case TimedOut() | Unknown():
            return _ambiguous()


def _ambiguous() -> _Settlement:
    return _Settlement(ToolCallStatus.AMBIGUOUS, error=OUTCOME_UNKNOWN)


async def _settle(
    connection: AsyncConnection,
    reference: CallRef,
    call: ToolCall,
    attempts: int,
    settlement: _Settlement,
    latency_ms: int,
) -> ToolOutcome:
    stored = await tool_calls.settle(
        connection,
        reference.tenant_id,
        reference.tool_call_id,
        attempts=attempts,
        status=settlement.status,
        result=settlement.result,
        error=settlement.error,
    )
    if not stored:
        # A later attempt has taken over; what this one brought changes nothing.
        return ToolOutcome((await tool_calls.find(connection, reference.tenant_id, reference.tool_call_id)).status)
    await audit.append(connection, reference.tenant_id, _entry(reference, call, settlement.status, latency_ms))
    return ToolOutcome(settlement.status)


def _entry(reference: CallRef, call: ToolCall, outcome: ToolCallStatus, latency_ms: int) -> audit.Entry:
    return audit.Entry(
        kind="tool_call",
        outcome=outcome,
        run_id=reference.run_id,
        step=call.step,
        subject_id=call.tool_call_id,
        tool=call.tool,
        latency_ms=latency_ms,
    )
