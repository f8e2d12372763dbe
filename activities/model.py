"""Asking the model: read the transcript, ask the pool, store the step and enter its tool calls into the ledger."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities import budget
from activities.catalogue import AgentCatalogue
from activities.heartbeat import heartbeating
from activities.proposals import MAX_CALLS_A_STEP, next_acts, propose
from activities.streamed import WRITES, Stream
from holdfast.domain.agents import AgentSpec
from holdfast.domain.audit import outcome_content
from holdfast.domain.client_tools import from_stored
from holdfast.domain.errors import ModelError, ModelRequestRefused, ModelsUnavailable, TooManyRequests
from holdfast.domain.events import (
    Event,
    MessageCompleted,
    ToolCallHandedOver,
    ToolCallProposed,
    shown_arguments,
    tool_call_now,
)
from holdfast.domain.messages import ChatMessage, PastRun, as_chat, is_json
from holdfast.domain.model_calls import Completion, StreamEvent
from holdfast.domain.policy import may_offer
from holdfast.domain.steps import ModelAnswer, ModelStep
from holdfast.domain.storable import storable
from holdfast.domain.tools import TRANSITIONS, ToolCallStatus
from holdfast.llm import prompt
from holdfast.llm.pool import ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.provider_keys import ProviderKeys
from holdfast.store import audit, event_log, messages, runs, steps, tool_calls, turns
from holdfast.store.engine import Database
from holdfast.store.event_log import Tail, Try
from holdfast.store.steps import Step
from holdfast.store.tool_calls import Proposal
from holdfast.tools import clients
from holdfast.tools.registry import Tool, ToolRegistry
from holdfast.tools.run import MAX_SHOWN_CHARACTERS, MAX_STORED_CHARACTERS
from workflows.stubs import MODELS_EXHAUSTED

#: How many runs of a conversation a model is given, this one included. Older ones are left out.
CONTEXT_RUNS = 20

#: How often arguments that are not JSON are given back to the model; after that it is asked to answer without tools.
MAX_BROKEN_IN_A_ROW = 2

#: Of an error that says only that it is not time yet: the log has no use for it.
_EXPECTED = ApplicationErrorCategory.BENIGN

#: How long a step of a run that is to end waits for its workflow to hear of it, and how often. (One that was reset
#: after its end never does.)
_UNTIL_HEARD = timedelta(seconds=1)
_ASKED_TO_WAIT = 60


@dataclass(frozen=True)
class _Question:
    agent: AgentSpec
    chat: list[ChatMessage]
    tools: list[dict[str, Any]]
    of_client: Mapping[str, Tool]
    use_tools: bool
    has_budget: bool
    patience_left: timedelta
    calls_left: int


class ModelActivities:
    """`call_model`."""

    def __init__(
        self,
        database: Database,
        agents: AgentCatalogue,
        pool: ModelPool,
        tools: ToolRegistry,
        provider_keys: ProviderKeys,
        slots: TenantSlots,
    ) -> None:
        self._database = database
        self._provider_keys = provider_keys
        self._agents = agents
        self._pool = pool
        self._tools = tools
        self._writes = asyncio.Semaphore(WRITES)
        self._slots = slots

    @activity.defn
    async def call_model(self, step: ModelStep) -> ModelAnswer:
        """Ask the model for a run's step, once: a step that is stored is not asked again.

        Raises:
            ApplicationError: retryable while models may come back, or the tenant's other calls end; of type
                `MODELS_EXHAUSTED`, and not retryable, when the agent's patience has run out or the provider refuses
                the request.
        """
        try:
            async with heartbeating(), self._slots.one(step.tenant_id):
                return await self._call(step)
        except TooManyRequests as full:
            # The worker's slot is free for another tenant while this waits at Temporal, which no patience counts.
            _leave_untouched()
            raise ApplicationError(str(full), type="TenantAtCap", category=_EXPECTED) from None

    async def _call(self, step: ModelStep) -> ModelAnswer:
        question = await self._read(step)
        if isinstance(question, ModelAnswer):
            return question
        try:
            completion, tail = await self._ask(step, question)
        except ModelError as error:
            raise await self._give_up_or_retry(step, question, error) from None
        except asyncio.CancelledError:
            # In a task of its own: this one is being cancelled. The provider may charge for what it said so far.
            await asyncio.shield(self._record_cancelled(step, question))
            raise
        return await self._store(step, question, completion, tail)

    async def _read(self, step: ModelStep) -> _Question | ModelAnswer:
        """What to ask; or the answer, stored by an attempt that died before Temporal heard of it, or before a reset."""
        async with self._database.tenant(step.tenant_id) as connection:
            run = await runs.before_step(connection, step.tenant_id, step.run_id, step.step)
            agent = await self._agents.get(connection, step.tenant_id, run.agent, run.agent_version)
            if run.is_answered:
                return await _stored(connection, step, agent)
            if run.is_held_back:
                raise _held_back()
            if agent.limits.max_cost_usd is not None and run.cost_usd >= agent.limits.max_cost_usd:
                return ModelAnswer(is_over_budget=True)
            # Not by a later attempt: one before it that still lives may answer, and would not have seen the message.
            if run.is_steered and _is_untouched():
                await turns.merge(connection, step.tenant_id, step.run_id, step.step)
            past = await messages.transcript(
                connection, step.tenant_id, step.run_id, runs=CONTEXT_RUNS, characters=MAX_SHOWN_CHARACTERS
            )
            failing_for = await _failing_for(connection, step)
            calls_left = await _calls_left(connection, step, agent)
            of_client = clients.as_tools(from_stored(run.client_tools))
            question = _Question(
                agent=agent,
                chat=as_chat(prompt.assemble(agent), past),
                tools=[*self._offered(agent), *(tool.as_function for tool in of_client.values())],
                of_client=of_client,
                use_tools=not step.last and _broken_in_a_row(past[-1]) < MAX_BROKEN_IN_A_ROW,
                has_budget=run.has_budget,
                patience_left=agent.limits.patience - failing_for,
                calls_left=calls_left,
            )
            if run.stream_is_open:
                await event_log.void(connection, _as_try(step))
            # Last, so that the budget is locked for no longer than it must be.
            refusal = await self._make_room(connection, step, question) if run.has_budget else None
        return refusal or question

    async def _make_room(self, connection: AsyncConnection, step: ModelStep, question: _Question) -> ModelAnswer | None:
        worst_usd = self._pool.worst_case(question.agent.model, [*question.chat, *question.tools])
        return await budget.make_room(connection, step, question.agent, worst_usd)

    async def _ask(self, step: ModelStep, question: _Question) -> tuple[Completion, Tail]:
        """The answer, and what is left to be told of its text: the rest was streamed."""
        async with Stream.open(self._database, self._writes, _as_try(step)) as stream:
            completion = await self._complete(step, question, stream)
            return completion, await stream.end(storable(completion.text, MAX_STORED_CHARACTERS))

    async def _complete(self, step: ModelStep, question: _Question, stream: Stream) -> Completion:
        def listen(event: StreamEvent) -> None:
            activity.heartbeat()
            stream.hear(event)

        alias = question.agent.model
        # At least one real attempt, also for a run whose patience ran out while no worker was up.
        allowed_s = max(question.patience_left.total_seconds(), 1.0)
        provider_keys = await self._provider_keys.opened(step.tenant_id)
        try:
            async with asyncio.timeout(allowed_s):
                return await self._pool.complete(
                    alias,
                    question.chat,
                    question.tools,
                    use_tools=question.use_tools,
                    listener=listen,
                    provider_keys=provider_keys,
                )
        except TimeoutError:
            raise ModelsUnavailable(f"{alias}: no answer within {allowed_s:.1f} s") from None

    def _offered(self, agent: AgentSpec) -> list[dict[str, Any]]:
        named = self._tools.matching(rule.pattern for rule in agent.tools)
        return [tool.bound_to(agent).as_function for tool in named if may_offer(agent, tool.name)]

    async def _give_up_or_retry(self, step: ModelStep, question: _Question, error: ModelError) -> ApplicationError:
        agent = question.agent
        async with self._database.tenant(step.tenant_id) as connection:
            await audit.append(connection, step.tenant_id, _entry(step, agent, "failed", str(error)))
            if question.has_budget:
                await budget.release(connection, step)
            failing_for = await steps.failing_for(connection, step.tenant_id, step.run_id, step.step)
        patience_left = agent.limits.patience - failing_for
        if isinstance(error, ModelRequestRefused) or patience_left <= timedelta(0):
            return ApplicationError(str(error), type=MODELS_EXHAUSTED, non_retryable=True)
        # A provider that asks for more time than there is gets one last call when the patience ends.
        wanted = error.retry_after if isinstance(error, ModelsUnavailable) else None
        delay = None if wanted is None else min(wanted, patience_left)
        return ApplicationError(str(error), type="ModelsUnavailable", next_retry_delay=delay)

    async def _record_cancelled(self, step: ModelStep, question: _Question) -> None:
        async with self._database.tenant(step.tenant_id) as connection:
            await audit.append(connection, step.tenant_id, _entry(step, question.agent, "cancelled"))
            if question.has_budget:
                await budget.release(connection, step)

    async def _store(self, step: ModelStep, question: _Question, completion: Completion, tail: Tail) -> ModelAnswer:
        proposals = propose(
            step, question.agent, self._tools, completion.tool_calls, question.calls_left, question.of_client
        )
        async with self._database.tenant(step.tenant_id) as connection:
            stored = _as_step(step, completion)
            is_first = await steps.store(connection, step.tenant_id, stored, _events(stored, proposals), tail)
            if is_first:
                await tool_calls.propose(connection, step.tenant_id, proposals)
                await audit.append(connection, step.tenant_id, *_entries(step, completion, proposals))
                if question.has_budget:
                    await budget.settle(connection, step, completion.usage.cost_usd)
            if is_first and not proposals:
                return ModelAnswer()
            # Also where another attempt, which was thought to be dead, has stored its answer first: that one counts.
            return await _stored(connection, step, question.agent)


def _as_try(step: ModelStep) -> Try:
    # By Temporal's clock, which every attempt is begun by, also after a reset of the workflow.
    return Try(step.tenant_id, step.run_id, step.step, activity.info().current_attempt_scheduled_time)


def _held_back() -> ApplicationError:
    """The run is to end, and its workflow is yet to hear of it, which cuts this waiting off."""
    hears_nothing = activity.info().attempt >= _ASKED_TO_WAIT
    return ApplicationError(
        "the run is being stopped",
        type="RunStopped",
        non_retryable=hears_nothing,
        next_retry_delay=_UNTIL_HEARD,
        category=_EXPECTED,
    )


def _is_untouched() -> bool:
    """Whether no attempt before this one has done anything: there is none, or each had no slot."""
    info = activity.info()
    return info.attempt == 1 or list(info.heartbeat_details) == [info.attempt - 1]


def _leave_untouched() -> None:
    if _is_untouched():
        activity.heartbeat(activity.info().attempt)


def _broken_in_a_row(run: PastRun) -> int:
    """In how many of a run's newest steps, one after the other, the model wrote arguments that are not JSON."""
    broken = [any(not is_json(exchange.call.arguments) for exchange in step.exchanges) for step in reversed(run.steps)]
    return len(list(takewhile(bool, broken)))


async def _stored(connection: AsyncConnection, step: ModelStep, agent: AgentSpec) -> ModelAnswer:
    calls = await tool_calls.of_step(connection, step.tenant_id, step.run_id, step.step)
    used_up = bool(calls) and await _calls_left(connection, step, agent) == 0
    return ModelAnswer(next_acts(calls), tools_used_up=used_up)


async def _calls_left(connection: AsyncConnection, step: ModelStep, agent: AgentSpec) -> int:
    # Fewer steps than that with as many calls as are taken of one can't have used them up.
    if (step.step - 1) * MAX_CALLS_A_STEP < agent.limits.max_tool_calls - MAX_CALLS_A_STEP:
        return MAX_CALLS_A_STEP
    made = await tool_calls.count(connection, step.tenant_id, step.run_id)
    return max(agent.limits.max_tool_calls - made, 0)


async def _failing_for(connection: AsyncConnection, step: ModelStep) -> timedelta:
    # Patience counts from the first failure, not from the start: a worker that was down for an hour has not tried.
    if activity.info().attempt == 1:
        return timedelta(0)
    return await steps.failing_for(connection, step.tenant_id, step.run_id, step.step)


def _entry(step: ModelStep, agent: AgentSpec, outcome: str, detail: str | None = None) -> audit.Entry:
    """A model call without an answer."""
    return audit.Entry(
        kind="model_call", outcome=outcome, run_id=step.run_id, step=step.step, alias=agent.model, detail=detail
    )


def _as_step(step: ModelStep, completion: Completion) -> Step:
    return Step(
        run_id=step.run_id,
        step=step.step,
        text=storable(completion.text, MAX_STORED_CHARACTERS),
        alias=completion.alias,
        model=completion.model,
        deployment=completion.deployment,
        usage=completion.usage,
        attempts=completion.attempts,
        latency_ms=completion.latency_ms,
        first_token_ms=completion.first_token_ms,
    )


def _events(step: Step, proposals: list[Proposal]) -> list[Event]:
    """What the run's log tells of a step: its text, and each call it wants, with those that went no further."""
    told: list[Event] = [MessageCompleted(step.step, step.text)] if step.text.strip() else []
    for call in proposals:
        shown = shown_arguments(call.arguments)
        told.append(ToolCallProposed(call.tool_call_id, step.step, call.tool, shown, call.effect))
        told += tool_call_now(call.tool_call_id, call.tool, call.status, error=call.error)
        if call.by_client and call.status is ToolCallStatus.APPROVED:
            told.append(ToolCallHandedOver(call.tool_call_id, call.tool, call.arguments_raw.strip() or "{}"))
    return told


def _entries(step: ModelStep, completion: Completion, proposals: list[Proposal]) -> list[audit.Entry]:
    """The model call, and each tool call that went no further than the model's wish."""
    refused = [
        audit.Entry(
            kind="tool_call",
            outcome=call.status,
            run_id=step.run_id,
            step=step.step,
            subject_id=call.tool_call_id,
            tool=call.tool,
            latency_ms=0,
            content={"outcome": outcome_content(None, call.error)},
        )
        for call in proposals
        if not TRANSITIONS[call.status]
    ]
    text = storable(completion.text, MAX_STORED_CHARACTERS)
    return [audit.answered(completion, run_id=step.run_id, step=step.step, text=text), *refused]
