"""Asking a person, and reading what became of it."""

from temporalio import activity

from activities.catalogue import AgentCatalogue
from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.errors import NotFound
from holdfast.domain.ids import new_confirmation_id
from holdfast.domain.policy import rule_on
from holdfast.domain.steps import CallRef, ConfirmationCheck, ConfirmationOutcome, ConfirmationRequested
from holdfast.domain.tools import ToolCallStatus
from holdfast.services.confirmations import expire
from holdfast.store import audit, confirmations, outbox, runs, tool_calls
from holdfast.store.engine import Database


class ConfirmationActivities:
    """See `holdfast.store.confirmations` for who wins when a decision and the deadline meet."""

    def __init__(self, database: Database, agents: AgentCatalogue) -> None:
        self._database = database
        self._agents = agents

    @activity.defn
    async def request_confirmation(self, reference: CallRef) -> ConfirmationRequested:
        """Make the confirmation of a call; made before, it stands, with its deadline."""
        tenant_id = reference.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            run = await runs.get(connection, tenant_id, reference.run_id)
        agent = await self._agents.get(tenant_id, run.agent, run.agent_version)
        async with self._database.tenant(tenant_id) as connection:
            call = await tool_calls.find(connection, tenant_id, reference.tool_call_id)
            ruling = rule_on(agent, call.tool)
            confirmation_id, deadline = await confirmations.request(
                connection,
                tenant_id,
                reference.tool_call_id,
                confirmation_id=new_confirmation_id(),
                deadline=ruling.deadline,
                on_deadline=ruling.on_deadline,
            )
            is_new = await tool_calls.move(
                connection,
                tenant_id,
                reference.tool_call_id,
                before=ToolCallStatus.PROPOSED,
                to=ToolCallStatus.AWAITING_CONFIRMATION,
            )
            if is_new:
                await confirmations.mark_run_waiting(connection, tenant_id, reference.run_id)
                entry = audit.Entry(
                    kind="confirmation",
                    outcome=ConfirmationStatus.PENDING,
                    run_id=reference.run_id,
                    step=call.step,
                    subject_id=confirmation_id,
                    tool=call.tool,
                    detail=ruling.rule,
                )
                await audit.append(connection, tenant_id, entry)
        return ConfirmationRequested(confirmation_id, deadline)

    @activity.defn
    async def check_confirmation(self, check: ConfirmationCheck) -> ConfirmationOutcome:
        """What became of a confirmation; it is expired here when its deadline has passed and nobody decided."""
        tenant_id, confirmation_id = check.tenant_id, check.confirmation_id
        async with self._database.tenant(tenant_id) as connection:
            confirmation = await confirmations.find(connection, tenant_id, confirmation_id)
            if confirmation is None:
                raise NotFound("confirmation", confirmation_id)
            if check.deadline_passed and await expire(connection, tenant_id, confirmation):
                status = ConfirmationStatus.EXPIRED
            else:
                # Read again: a decision may have won while this waited for the row.
                found = await confirmations.find(connection, tenant_id, confirmation_id)
                status = found.status if found else confirmation.status
            if status is not ConfirmationStatus.PENDING:
                await outbox.heard_decision(connection, tenant_id, check.run_id, confirmation_id)
        return ConfirmationOutcome(status)
