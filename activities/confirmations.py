"""Asking a person, and reading what became of it."""

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.catalogue import AgentCatalogue
from holdfast.domain.agents import ConfirmationDefaults
from holdfast.domain.confirmations import Confirmation, ConfirmationKind, ConfirmationStatus, Resolution
from holdfast.domain.errors import NotFound
from holdfast.domain.permissions import WHOLE_TENANT
from holdfast.domain.policy import rule_on
from holdfast.domain.steps import CallRef, ConfirmationCheck, ConfirmationOutcome, ConfirmationRequested
from holdfast.domain.tools import Declaration, ToolCall, ToolCallStatus
from holdfast.services.budgets import limit_of
from holdfast.services.confirmation_endings import (
    as_requested,
    expire_or_escalate,
    record_asked,
    remind,
    withdraw_one,
    withdraw_raise,
)
from holdfast.store import budgets, confirmations, outbox, runs, tool_calls
from holdfast.store.confirmations import Question
from holdfast.store.engine import Database
from holdfast.tools.registry import ToolRegistry


class ConfirmationActivities:
    """See `holdfast.store.confirmations` for who wins when a decision and the deadline meet."""

    def __init__(self, database: Database, agents: AgentCatalogue, tools: ToolRegistry) -> None:
        self._database = database
        self._agents = agents
        self._tools = tools

    @activity.defn
    async def request_confirmation(self, reference: CallRef) -> ConfirmationRequested:
        """Make the confirmation of a call; made before, it stands, with its deadline."""
        tenant_id = reference.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            run = await runs.get(connection, tenant_id, reference.run_id)
            call = await tool_calls.find(connection, tenant_id, reference.tool_call_id)
            agent = await self._agents.get(connection, tenant_id, run.agent, run.agent_version)
            tool = self._tools.get(call.tool)
            declared = tool.declaration if tool else Declaration()
            ruling = rule_on(agent, call.tool, declared, call.arguments or {})
            question = _question(call, ruling.rule, ruling.asking, tool.schema if tool else None)
            await runs.lock(connection, tenant_id, reference.run_id)
            is_new = await tool_calls.move(
                connection,
                tenant_id,
                reference.tool_call_id,
                before=ToolCallStatus.PROPOSED,
                to=ToolCallStatus.AWAITING_CONFIRMATION,
            )
            if not is_new and (await tool_calls.find(connection, tenant_id, call.tool_call_id)).confirmation_id is None:
                # Its run has ended while this was under way; nobody would hear what a person decides.
                raise ApplicationError(f"{call.tool_call_id} is not to be confirmed any more", non_retryable=True)
            asked = await confirmations.request(connection, tenant_id, question)
            if is_new:
                await confirmations.mark_run_waiting(connection, tenant_id, reference.run_id)
                await record_asked(connection, tenant_id, asked, call.step)
        return as_requested(asked)

    @activity.defn
    async def check_confirmation(self, check: ConfirmationCheck) -> ConfirmationOutcome:
        """What became of a confirmation; what its timers were set for is done here, if nobody has decided."""
        tenant_id, confirmation_id = check.tenant_id, check.confirmation_id
        async with self._database.tenant(tenant_id) as connection:
            await runs.lock(connection, tenant_id, check.run_id)
            confirmation = await confirmations.find(connection, tenant_id, confirmation_id, WHOLE_TENANT)
            if confirmation is None:
                raise NotFound("confirmation", confirmation_id)
            if check.withdraw:
                await withdraw_one(connection, tenant_id, confirmation_id)
            elif await _is_out_of_date(connection, tenant_id, confirmation):
                await withdraw_raise(connection, tenant_id, confirmation)
            elif check.deadline_passed and not _has_moved(confirmation, check):
                await expire_or_escalate(connection, tenant_id, confirmation)
            elif check.remind:
                await remind(connection, tenant_id, confirmation)
            confirmation = (
                await confirmations.find(connection, tenant_id, confirmation_id, WHOLE_TENANT) or confirmation
            )
            if confirmation.status is not ConfirmationStatus.PENDING:
                await outbox.heard_decision(connection, tenant_id, check.run_id, confirmation_id)
        return _outcome(confirmation)


def _has_moved(confirmation: Confirmation, check: ConfirmationCheck) -> bool:
    """Whether further people have been asked since the deadline that passed, until a later one."""
    return check.deadline is not None and confirmation.deadline > check.deadline


async def _is_out_of_date(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> bool:
    """Whether it asks to raise a budget that has changed meanwhile: there may be room without a raise."""
    if confirmation.kind is not ConfirmationKind.BUDGET:
        return False
    return not await budgets.is_as_asked(
        connection, tenant_id, limit_usd=limit_of(confirmation), asked_at=confirmation.created_at
    )


def _question(call: ToolCall, rule: str, terms: ConfirmationDefaults, schema: dict[str, object] | None) -> Question:
    return Question(
        kind=ConfirmationKind.CALL,
        tool_call_id=call.tool_call_id,
        rule=rule,
        deadline=terms.deadline,
        on_deadline=terms.on_deadline,
        arguments_schema=schema,
        remind_after=terms.remind_after,
        escalate=None if terms.escalate is None else terms.escalate.model_dump(mode="json"),
        approvers=terms.approvers,
        four_eyes=terms.four_eyes,
    )


def _outcome(confirmation: Confirmation) -> ConfirmationOutcome:
    if confirmation.status is ConfirmationStatus.PENDING:
        return ConfirmationOutcome(ConfirmationStatus.PENDING, requested=as_requested(confirmation))
    has_expired = confirmation.status is ConfirmationStatus.EXPIRED
    return ConfirmationOutcome(
        confirmation.status,
        cancels_run=has_expired and confirmation.on_deadline == "cancel_run",
        runs_again=confirmation.decision is Resolution.RUN_AGAIN,
    )
