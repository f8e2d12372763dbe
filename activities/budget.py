"""Room in the tenant's budget for a model call of a run; where there is none, a person may be asked to raise it.

All of it in one transaction, which locks the run and then the budget. A limit that is raised meanwhile is seen here, or
whoever raises it sees the question: see `holdfast.services.budgets`.
"""

import logging
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.exceptions import ApplicationError

from holdfast.domain.agents import AgentSpec
from holdfast.domain.budgets import Budget, dollars
from holdfast.domain.confirmations import RAISE_BUDGET, Confirmation, ConfirmationStatus, raise_digest
from holdfast.domain.ids import new_confirmation_id
from holdfast.domain.runs import OPEN, RunStatus
from holdfast.domain.steps import ModelAnswer, ModelStep
from holdfast.services.confirmation_endings import as_requested, record_asked, withdraw_raise
from holdfast.store import audit, budgets, confirmations, raises, runs
from holdfast.store.budgets import Reservation
from holdfast.store.raises import RaiseQuestion

log = logging.getLogger(__name__)

#: A person has said no, or nothing, to a step: it does not ask again.
_REFUSED = (ConfirmationStatus.REJECTED, ConfirmationStatus.EXPIRED)


async def make_room(
    connection: AsyncConnection, step: ModelStep, agent: AgentSpec, worst_usd: Decimal
) -> ModelAnswer | None:
    """Reserve what a step can cost at most. None: it is reserved; otherwise, what the workflow is told instead.

    Raises:
        ApplicationError: the run has ended meanwhile; what were reserved now, nobody would release.
    """
    status = await runs.lock_one(connection, step.tenant_id, step.run_id)
    if status not in OPEN:
        raise ApplicationError("the run has ended", type="RunEnded", non_retryable=True)
    await budgets.lock(connection, step.tenant_id)
    reservation = Reservation.of_step(step.run_id, step.step, worst_usd)
    has_room = await budgets.reserve(connection, step.tenant_id, reservation)
    if has_room and status is not RunStatus.REQUIRES_CONFIRMATION:
        return None
    asked = await raises.newest(connection, step.tenant_id, step.run_id, step.step)
    is_pending = asked is not None and asked.status is ConfirmationStatus.PENDING
    if has_room:
        # Asked by an attempt that the workflow never heard of, before somebody made room.
        if asked is not None and is_pending:
            await withdraw_raise(connection, step.tenant_id, asked)
        return None
    if asked is not None and is_pending:
        return ModelAnswer(asked=as_requested(asked))
    return await _refuse_or_ask(connection, step, agent, worst_usd, asked)


async def settle(connection: AsyncConnection, step: ModelStep, cost_usd: Decimal | None) -> None:
    """Count what a step did cost, in the transaction that stores it."""
    reservation = Reservation.of_step(step.run_id, step.step, cost_usd or Decimal(0))
    reserved = await budgets.settle(connection, step.tenant_id, reservation.reservation_id, cost_usd)
    if reserved is not None and reserved < reservation.amount_usd:
        log.warning("step %s of run %s cost more than was reserved for it", step.step, step.run_id)


async def release(connection: AsyncConnection, step: ModelStep) -> None:
    """Give back what was reserved for a step that brought no answer."""
    await budgets.release(
        connection, step.tenant_id, Reservation.of_step(step.run_id, step.step, Decimal(0)).reservation_id
    )


async def _refuse_or_ask(
    connection: AsyncConnection, step: ModelStep, agent: AgentSpec, worst_usd: Decimal, before: Confirmation | None
) -> ModelAnswer:
    budget = await budgets.find(connection, step.tenant_id)
    assert budget is not None, "it was locked above, and none is ever removed"
    why = f"{budget}; this call may cost ${dollars(worst_usd)}"
    if budget.terms.raise_by_usd is None or (before is not None and before.status in _REFUSED):
        refused = audit.Entry(
            kind="model_call", outcome="refused", run_id=step.run_id, step=step.step, alias=agent.model, detail=why
        )
        await audit.append(connection, step.tenant_id, refused)
        return ModelAnswer(is_over_budget=True)
    question = _question(step, agent, budget, budget.terms.raise_by_usd, why)
    asked = await raises.request(connection, step.tenant_id, question)
    await confirmations.mark_run_waiting(connection, step.tenant_id, step.run_id)
    await record_asked(connection, step.tenant_id, asked, step.step)
    return ModelAnswer(asked=as_requested(asked))


def _question(step: ModelStep, agent: AgentSpec, budget: Budget, by: Decimal, why: str) -> RaiseQuestion:
    confirmation_id = new_confirmation_id()
    arguments = {
        "limit_usd": dollars(budget.terms.limit_usd),
        "raise_by_usd": dollars(by),
        "spent_usd": dollars(budget.spent_usd),
    }
    return RaiseQuestion(
        confirmation_id=confirmation_id,
        run_id=step.run_id,
        step=step.step,
        tool=RAISE_BUDGET,
        arguments=arguments,
        arguments_digest=raise_digest(tenant_id=step.tenant_id, confirmation_id=confirmation_id, arguments=arguments),
        rule=f"raise the budget by ${dollars(by)}? {why}",
        approvers=budget.terms.approvers,
        deadline=agent.confirmation.deadline,
        remind_after=agent.confirmation.remind_after,
    )
