"""Deciding a confirmation. The row is set first, by compare-and-set; only then is anybody told anything."""

import hmac
import logging
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.confirmations import Confirmation, ConfirmationStatus, Decision
from holdfast.domain.errors import Conflict, DigestMismatch, NotFound, Unavailable
from holdfast.domain.tools import ToolCallStatus
from holdfast.store import audit, confirmations, outbox, tool_calls
from holdfast.store.engine import Database
from holdfast.temporal.client import MessageWorkflows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decided:
    """What a person decides. `arguments_digest` is that of the arguments they were shown."""

    decision: Decision
    arguments_digest: str
    person: str
    reason: str | None = None


class Confirmations:
    """Reads confirmations and decides them."""

    def __init__(self, database: Database, workflows: MessageWorkflows) -> None:
        self._database = database
        self._workflows = workflows

    async def get(self, tenant_id: str, confirmation_id: str) -> Confirmation:
        """One confirmation.

        Raises:
            NotFound: the tenant has none with this id.
        """
        async with self._database.tenant(tenant_id) as connection:
            return await _find(connection, tenant_id, confirmation_id)

    async def page(
        self,
        tenant_id: str,
        *,
        status: ConfirmationStatus | None,
        run_id: str | None,
        after: str | None,
        limit: int,
    ) -> list[Confirmation]:
        """A page of confirmations, oldest first."""
        async with self._database.tenant(tenant_id) as connection:
            return await confirmations.page(
                connection, tenant_id, status=status, run_id=run_id, after=after, limit=limit
            )

    async def decide(self, tenant_id: str, confirmation_id: str, decided: Decided) -> Confirmation:
        """Decide a confirmation; the same decision by the same person again answers alike.

        Raises:
            NotFound: the tenant has none with this id.
            DigestMismatch: the arguments are not those the person was shown.
            Conflict: it was decided otherwise, or has expired.
            Unavailable: the database does not answer; nothing was decided.
        """
        async with self._database.tenant(tenant_id) as connection:
            confirmation = await _find(connection, tenant_id, confirmation_id)
            if not hmac.compare_digest(confirmation.arguments_digest, decided.arguments_digest):
                raise DigestMismatch("The arguments that wait for confirmation are not those of this digest.")
            workflow = await confirmations.workflow_of(connection, tenant_id, confirmation_id)
            is_first = await _store(connection, tenant_id, confirmation, decided, workflow)
            confirmation = await _find(connection, tenant_id, confirmation_id)
        if not is_first and not _is_repeat(confirmation, decided):
            raise Conflict(_what_stands(confirmation))
        if is_first:
            await self._wake(workflow, confirmation_id)
        return confirmation

    async def _wake(self, workflow: str, confirmation_id: str) -> None:
        try:
            await self._workflows.wake_decided(workflow, confirmation_id)
        except Unavailable as error:
            log.warning("decision on %s is stored and will be told by the relay: %s", confirmation_id, error)


async def _find(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> Confirmation:
    confirmation = await confirmations.find(connection, tenant_id, confirmation_id)
    if confirmation is None:
        raise NotFound("confirmation", confirmation_id)
    return confirmation


async def _store(
    connection: AsyncConnection, tenant_id: str, confirmation: Confirmation, decided: Decided, workflow: str
) -> bool:
    verdict = confirmations.Verdict(
        decision=decided.decision,
        arguments_digest=decided.arguments_digest,
        decided_by=decided.person,
        decided_via="api",
        reason=decided.reason,
    )
    confirmation_id = confirmation.confirmation_id
    if await confirmations.decide(connection, tenant_id, confirmation_id, verdict):
        await settle_call(connection, tenant_id, confirmation, decided.decision.status, decided.person, decided.reason)
        await outbox.add_decided(connection, tenant_id, confirmation_id, workflow)
        return True
    # Too late by the clock, while the deadline's timer has not been heard yet: what this caller is told must last.
    if await confirmations.is_overdue(connection, tenant_id, confirmation_id):
        await expire(connection, tenant_id, confirmation)
    return False


async def expire(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> bool:
    """Expire a pending confirmation and its call. False: it was decided, or expired, before."""
    if not await confirmations.expire(connection, tenant_id, confirmation.confirmation_id):
        return False
    await settle_call(connection, tenant_id, confirmation, ConfirmationStatus.EXPIRED, None, None)
    return True


async def withdraw(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """Withdraw what a run that ends early leaves: nobody shall approve what can't run any more."""
    for confirmation in await confirmations.withdraw(connection, tenant_id, run_id):
        await settle_call(connection, tenant_id, confirmation, ConfirmationStatus.WITHDRAWN, None, None)
    await tool_calls.withdraw(connection, tenant_id, run_id, _WITHDRAWN)


_WITHDRAWN = "The run ended before this call could be made. It was not run."

_CALL_STATUS = {
    ConfirmationStatus.APPROVED: ToolCallStatus.APPROVED,
    ConfirmationStatus.REJECTED: ToolCallStatus.REJECTED,
    ConfirmationStatus.EXPIRED: ToolCallStatus.EXPIRED,
    ConfirmationStatus.WITHDRAWN: ToolCallStatus.WITHDRAWN,
}


async def settle_call(
    connection: AsyncConnection,
    tenant_id: str,
    confirmation: Confirmation,
    status: ConfirmationStatus,
    person: str | None,
    reason: str | None,
) -> None:
    """Carry what was decided over to the tool call, with what the model is told of it, to the run, and on record."""
    await tool_calls.move(
        connection,
        tenant_id,
        confirmation.tool_call_id,
        before=ToolCallStatus.AWAITING_CONFIRMATION,
        to=_CALL_STATUS[status],
        error=_what_the_model_is_told(status, reason),
    )
    await confirmations.mark_run_going_on(connection, tenant_id, confirmation.run_id)
    entry = audit.Entry(
        kind="confirmation",
        outcome=status,
        run_id=confirmation.run_id,
        subject_id=confirmation.confirmation_id,
        tool=confirmation.tool,
        person=person,
    )
    await audit.append(connection, tenant_id, entry)


def _what_the_model_is_told(status: ConfirmationStatus, reason: str | None) -> str | None:
    match status:
        case ConfirmationStatus.REJECTED:
            return f"A person rejected this call. Reason: {reason or 'none given'}. It was not run; do not repeat it."
        case ConfirmationStatus.EXPIRED:
            return "Nobody confirmed this call in time. It was not run; do not repeat it."
        case ConfirmationStatus.WITHDRAWN:
            return _WITHDRAWN
        case _:
            return None


def _is_repeat(confirmation: Confirmation, decided: Decided) -> bool:
    return (confirmation.decision, confirmation.decided_by, confirmation.reason) == (
        decided.decision,
        decided.person,
        decided.reason,
    )


def _what_stands(confirmation: Confirmation) -> str:
    if confirmation.status is ConfirmationStatus.EXPIRED:
        return f"The confirmation expired at {confirmation.deadline.isoformat()}."
    if confirmation.status is ConfirmationStatus.WITHDRAWN:
        return "The confirmation was withdrawn, since its run has ended."
    return f"The confirmation was {confirmation.status} by {confirmation.decided_by}."
