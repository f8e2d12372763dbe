"""A tenant's budget: what it is, who may change it, and what a raise lets go on.

A question for more budget names the limit it was asked of. A raise is made only while that is still the limit: two
runs that ask at once, and are both approved, raise it once. When the limit changes, every run that waits for room is
woken, finds its question out of date, and looks for room anew.
"""

from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.budgets import Budget, BudgetTerms, dollars
from holdfast.domain.confirmations import Confirmation
from holdfast.domain.errors import Forbidden, NotFound
from holdfast.domain.permissions import Caller
from holdfast.services.refusals import Asked, recording_refusals
from holdfast.store import audit, budgets, confirmations, outbox, raises
from holdfast.store.engine import Database


class Budgets:
    """Reads and sets the budget of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str) -> Budget:
        """The budget, with what is spent and reserved of it now.

        Raises:
            NotFound: the tenant has none: its model calls may cost what they like.
        """
        async with self._database.tenant(tenant_id) as connection:
            return await _get(connection, tenant_id)

    async def put(self, caller: Caller, terms: BudgetTerms) -> Budget:
        """Set the budget; what was spent in its period before counts. Whoever waits for room looks for it again.

        Raises:
            Forbidden: the budget has approvers, and the person has none of their roles.
        """
        tenant_id = caller.tenant_id
        async with (
            recording_refusals(self._database, caller, Asked("set budget")),
            self._database.tenant(tenant_id) as connection,
        ):
            if await budgets.lock(connection, tenant_id):
                _check_right(caller, (await _get(connection, tenant_id)).terms)
            await budgets.put(connection, tenant_id, terms)
            detail = f"${dollars(terms.limit_usd)}, {terms.period}"
            await audit.append(
                connection, tenant_id, audit.Entry(kind="budget", outcome="set", person=caller.person, detail=detail)
            )
            await _wake_waiting(connection, tenant_id)
            return await _get(connection, tenant_id)


async def raise_as_asked(connection: AsyncConnection, tenant_id: str, asked: Confirmation, person: str) -> None:
    """Raise the budget as a confirmation asks, unless its limit has changed since."""
    limit, by = limit_of(asked), Decimal(asked.arguments["raise_by_usd"])
    raised = await budgets.raise_limit(connection, tenant_id, limit_usd=limit, raise_by_usd=by)
    if raised is None:
        return
    entry = audit.Entry(
        kind="budget",
        outcome="raised",
        run_id=asked.run_id,
        subject_id=asked.confirmation_id,
        person=person,
        detail=f"from ${dollars(limit)} to ${dollars(raised)}",
    )
    await audit.append(connection, tenant_id, entry)
    await _wake_waiting(connection, tenant_id)


def limit_of(asked: Confirmation) -> Decimal:
    """The limit that a question for more budget was asked of."""
    return Decimal(asked.arguments["limit_usd"])


async def _wake_waiting(connection: AsyncConnection, tenant_id: str) -> None:
    """Have each run that waits for room look whether its question still stands.

    In a transaction that has the budget's lock: a run that asks at this moment has asked before, and is seen here, or
    asks after, and sees the new limit.
    """
    for asked in await raises.pending(connection, tenant_id):
        workflow = await confirmations.workflow_of(connection, tenant_id, asked.confirmation_id)
        await outbox.add_decided(connection, tenant_id, asked.confirmation_id, workflow, is_due=True)


def _check_right(caller: Caller, terms: BudgetTerms) -> None:
    # Otherwise, whoever may not approve a raise could set a higher limit.
    if terms.approvers and not caller.roles & set(terms.approvers):
        raise Forbidden(f"To set this budget, one of these roles is needed: {', '.join(terms.approvers)}.")


async def _get(connection: AsyncConnection, tenant_id: str) -> Budget:
    budget = await budgets.find(connection, tenant_id)
    if budget is None:
        raise NotFound("budget of the tenant", tenant_id)
    return budget
