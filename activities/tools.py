"""Executing a tool call: reserve it in the ledger, run it, settle it.

The danger is the time between the reservation and the outcome. If this process dies there, the effect may have
happened, and the next attempt finds the call `dispatched` with no result. Then:

- a tool that only reads, or is idempotent (`natural`, or `key` with the same key), runs again; the dispatch before is
  fenced: if it still lives somewhere, what it brings changes nothing;
- a tool with a probe is probed, once its timeout has passed: what proves success settles it, what proves absence has
  it run again;
- otherwise the outcome is `ambiguous`: nothing is run, and a person is asked what became of it.

A tool that is cut at its timeout is in the same danger. A result that can't be stored, because the database is away, is
held and stored later: giving up would make it unknown.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from activities import dispatches, settlements
from activities.catalogue import AgentCatalogue
from activities.dispatches import Reserved
from activities.heartbeat import heartbeating
from activities.settlements import AMBIGUOUS, Settlement
from holdfast.domain.agents import AgentSpec, ConfirmationDefaults
from holdfast.domain.confirmations import ConfirmationKind
from holdfast.domain.errors import Unavailable
from holdfast.domain.messages import OUTCOME_UNKNOWN
from holdfast.domain.policy import rule_on
from holdfast.domain.steps import CallRef, ConfirmationRequested, ToolOutcome
from holdfast.domain.tools import Declaration, Effect, ToolCall, ToolCallStatus
from holdfast.services.confirmation_endings import as_requested, record_asked
from holdfast.store import confirmations, runs, switches, tool_calls
from holdfast.store.confirmations import Question
from holdfast.store.engine import Database
from holdfast.tools.registry import Tool, ToolRegistry
from holdfast.tools.run import Outcome, Raised, Returned, TimedOut, ToolRunner, Unknown

log = logging.getLogger(__name__)

#: How long to wait before storing an outcome again, in seconds.
_STORE_AGAIN_S = 0.5

#: How long to wait before running a repeatable tool again that was cut, in seconds; doubled each time.
_RUN_AGAIN_S = 0.5

#: How long a known outcome may take to be stored when the run is cancelled or the worker stopped, in seconds.
_LAST_MOMENT_S = 5.0


@dataclass(frozen=True)
class _InDoubt:
    """A call that was handed out, and of which nothing was heard; its tool may tell what became of it, after `wait`."""

    call: ToolCall
    tool: Tool | None
    wait: timedelta


class ToolActivities:
    """`execute_tool`."""

    def __init__(self, database: Database, agents: AgentCatalogue, tools: ToolRegistry, runner: ToolRunner) -> None:
        self._database = database
        self._agents = agents
        self._tools = tools
        self._runner = runner

    @activity.defn
    async def execute_tool(self, reference: CallRef) -> ToolOutcome:
        """Run an approved call once, and store what came of it. What the tool raises is an outcome, not an error."""
        async with heartbeating():
            reserved = await self._reserve(reference)
            if isinstance(reserved, _InDoubt):
                reserved = await self._probe(reference, reserved)
            if isinstance(reserved, ToolOutcome):
                return reserved
            started = time.monotonic()
            reserved, settlement = await self._run(reference, reserved)
            latency_ms = round((time.monotonic() - started) * 1000)
            storing = asyncio.create_task(
                self._settle_until_stored(reference, reserved.call, settlement, latency_ms), name="settle"
            )
            try:
                return await asyncio.shield(storing)
            except asyncio.CancelledError:
                # What is known by now is not to become unknown because the run is cancelled, or the worker stopped.
                await asyncio.wait([storing], timeout=_LAST_MOMENT_S)
                raise

    async def _run(self, reference: CallRef, reserved: Reserved) -> tuple[Reserved, Settlement]:
        """Run a call, and again when it is cut at its timeout and may be repeated."""
        try:
            outcome = await self._run_once(reference, reserved)
            for attempt in range(1, reserved.call.terms.attempts):
                if not isinstance(outcome, TimedOut | Unknown):
                    break
                await asyncio.sleep(_RUN_AGAIN_S * 2 ** (attempt - 1))
                again = await self._dispatch_again(reference, reserved)
                if again is None:
                    break
                reserved = again
                outcome = await self._run_once(reference, reserved)
            return reserved, await self._settlement(reserved, outcome)
        except asyncio.CancelledError:
            # In a task of its own: this one is being cancelled.
            await asyncio.shield(self._cut_off(reference, reserved))
            raise

    async def _run_once(self, reference: CallRef, reserved: Reserved) -> Outcome:
        return await self._runner.run(
            reserved.tool,
            reserved.call.arguments or {},
            idempotency_key=reference.tool_call_id,
            timeout_s=reserved.call.terms.timeout_s,
        )

    async def _settlement(self, reserved: Reserved, outcome: Outcome) -> Settlement:
        match outcome:
            case Returned(result):
                return Settlement(ToolCallStatus.SUCCEEDED, result=result)
            case Raised(error):
                return Settlement(ToolCallStatus.FAILED, error=error)
            case TimedOut(timeout_s) if reserved.call.terms.effect is Effect.READ:
                return Settlement(ToolCallStatus.FAILED, error=f"The tool did not answer within {timeout_s:g} s.")
            case Unknown(reason) if reserved.call.terms.effect is Effect.READ:
                return Settlement(ToolCallStatus.FAILED, error=reason)
            case Unknown(reason):
                return await self._probed(reserved.call, reserved.tool) or replace(
                    AMBIGUOUS, error=f"{OUTCOME_UNKNOWN} ({reason})"
                )
            case TimedOut():
                # Its thread may still be at it: only success can be proved now.
                return await self._probed(reserved.call, reserved.tool) or AMBIGUOUS

    async def _reserve(self, reference: CallRef) -> Reserved | _InDoubt | ToolOutcome:
        async with self._database.tenant(reference.tenant_id) as connection:
            call = await tool_calls.lock(connection, reference.tenant_id, reference.tool_call_id)
            tool = await self._tool(connection, reference, call.tool)
            if call.status is ToolCallStatus.APPROVED:
                obstacle = await dispatches.obstacle(connection, reference, call, tool)
                if obstacle is not None or tool is None:
                    return await dispatches.deny(connection, reference, call, obstacle or "")
            elif call.status is ToolCallStatus.DISPATCHED:
                may_run = call.terms.is_repeatable and await dispatches.may_run_again(connection, reference, call)
                if tool is None or not may_run:
                    return _InDoubt(call, tool, await dispatches.time_to_probe(connection, reference, call, tool))
            else:
                return await self._what_stands(connection, reference, call)
            return await dispatches.dispatch(connection, reference, call, tool)

    async def _dispatch_again(self, reference: CallRef, reserved: Reserved) -> Reserved | None:
        """None: another attempt has dispatched the call since, or it is settled, and this one has no say any more."""
        async with self._database.tenant(reference.tenant_id) as connection:
            call = await tool_calls.lock(connection, reference.tenant_id, reference.tool_call_id)
            if (call.status, call.attempts) != (ToolCallStatus.DISPATCHED, reserved.call.attempts):
                return None
            if await switches.holds_back(connection, reference.tenant_id, call.run_id):
                return None
            return await dispatches.dispatch(connection, reference, call, reserved.tool)

    async def _probe(self, reference: CallRef, doubt: _InDoubt) -> Reserved | ToolOutcome:
        """Have the tool tell what became of a call; where it proves that nothing did, the call may run again."""
        await asyncio.sleep(doubt.wait.total_seconds())
        probed = None
        if doubt.tool is not None:
            probed = await self._runner.probe(
                doubt.tool, doubt.call.arguments or {}, doubt.call.tool_call_id, doubt.call.terms.timeout_s
            )
        async with self._database.tenant(reference.tenant_id) as connection:
            await runs.lock(connection, reference.tenant_id, doubt.call.run_id)
            call = await tool_calls.lock(connection, reference.tenant_id, reference.tool_call_id)
            if call.status is not ToolCallStatus.DISPATCHED or call.attempts != doubt.call.attempts:
                return await self._what_stands(connection, reference, call)
            if isinstance(probed, Returned):
                settlement = Settlement(ToolCallStatus.SUCCEEDED, result=probed.result)
                return await self._settle(connection, reference, call, settlement, latency_ms=0)
            if probed is None or doubt.tool is None or not await dispatches.may_run_again(connection, reference, call):
                return await self._give_up(connection, reference, call)
            return await dispatches.dispatch(connection, reference, call, doubt.tool)

    async def _probed(self, call: ToolCall, tool: Tool) -> Settlement | None:
        """What a probe proves of a call that was just cut; None: nothing, or that it has not happened yet."""
        if tool.declaration.probe is None:
            return None
        probed = await self._runner.probe(tool, call.arguments or {}, call.tool_call_id, call.terms.timeout_s)
        if isinstance(probed, Returned):
            return Settlement(ToolCallStatus.SUCCEEDED, result=probed.result)
        return None

    async def _give_up(self, connection: AsyncConnection, reference: CallRef, call: ToolCall) -> ToolOutcome:
        settlement = AMBIGUOUS
        if call.terms.effect is Effect.READ:
            settlement = Settlement(ToolCallStatus.FAILED, error=f"{call.attempts} workers died of it.")
        return await self._settle(connection, reference, call, settlement, latency_ms=0)

    async def _what_stands(self, connection: AsyncConnection, reference: CallRef, call: ToolCall) -> ToolOutcome:
        """A call that this attempt has nothing to do with any more; if a person is asked about it, the run waits."""
        if call.status is not ToolCallStatus.AMBIGUOUS:
            return ToolOutcome(call.status)
        asked = await confirmations.outcome_asked(connection, reference.tenant_id, call.tool_call_id)
        return ToolOutcome(call.status, asked=None if asked is None else as_requested(asked))

    async def _settle_until_stored(
        self, reference: CallRef, call: ToolCall, settlement: Settlement, latency_ms: int
    ) -> ToolOutcome:
        while True:
            try:
                async with self._database.tenant(reference.tenant_id) as connection:
                    return await self._settle(connection, reference, call, settlement, latency_ms)
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("outcome of %s can't be stored yet: %s", reference.tool_call_id, type(error).__name__)
                await asyncio.sleep(_STORE_AGAIN_S)

    async def _settle(
        self, connection: AsyncConnection, reference: CallRef, call: ToolCall, settlement: Settlement, latency_ms: int
    ) -> ToolOutcome:
        if not await settlements.store(connection, reference, call, settlement, latency_ms):
            # A later dispatch has taken over, or somebody has settled it; what this one brought changes nothing.
            stands = await tool_calls.find(connection, reference.tenant_id, reference.tool_call_id)
            return await self._what_stands(connection, reference, stands)
        if settlement.status is ToolCallStatus.AMBIGUOUS:
            return ToolOutcome(settlement.status, asked=await self._ask(connection, reference, call))
        return ToolOutcome(settlement.status)

    async def _ask(self, connection: AsyncConnection, reference: CallRef, call: ToolCall) -> ConfirmationRequested:
        """Ask a person, in the transaction in which the outcome became unknown, what became of a call."""
        agent = await self._agent(connection, reference)
        tool = self._tools.get(call.tool)
        declared = tool.declaration if tool else Declaration()
        terms = rule_on(agent, call.tool, declared, call.arguments or {}).asking
        asked = await confirmations.request(connection, reference.tenant_id, _question(call, terms))
        await confirmations.mark_run_waiting(connection, reference.tenant_id, call.run_id)
        await record_asked(connection, reference.tenant_id, asked, call.step)
        return as_requested(asked)

    async def _tool(self, connection: AsyncConnection, reference: CallRef, name: str) -> Tool | None:
        """A tool as the run's agent may use it."""
        tool = self._tools.get(name)
        if tool is None or tool.for_agent is None:
            return tool
        return tool.bound_to(await self._agent(connection, reference))

    async def _agent(self, connection: AsyncConnection, reference: CallRef) -> AgentSpec:
        run = await runs.get(connection, reference.tenant_id, reference.run_id)
        return await self._agents.get(connection, reference.tenant_id, run.agent, run.agent_version)

    async def _cut_off(self, reference: CallRef, reserved: Reserved) -> None:
        """The run is cancelled while its tool runs: what it may have done by now is unknown, and nobody waits for it.

        Where a worker is merely being stopped, nothing is said: the next one finds the call dispatched.
        """
        details = activity.cancellation_details()
        if details is None or not details.cancel_requested:
            return
        settlement = AMBIGUOUS
        if reserved.call.terms.effect is Effect.READ:
            settlement = Settlement(ToolCallStatus.FAILED, error="The run was cancelled before the tool answered.")
        try:
            async with self._database.tenant(reference.tenant_id) as connection:
                await settlements.store(connection, reference, reserved.call, settlement, latency_ms=0)
        except (Unavailable, SQLAlchemyError) as error:
            # The end of the run says the same; that the run was cancelled is not to become an error of ours.
            log.warning("that %s was cut off can't be stored: %s", reference.tool_call_id, type(error).__name__)


def _question(call: ToolCall, terms: ConfirmationDefaults) -> Question:
    return Question(
        kind=ConfirmationKind.OUTCOME,
        tool_call_id=call.tool_call_id,
        attempt=call.attempts,
        rule="the outcome is unknown: its worker died, or it did not answer in time",
        deadline=terms.deadline,
        on_deadline="unknown",
        remind_after=terms.remind_after,
        approvers=terms.approvers,
        four_eyes=terms.four_eyes,
    )
