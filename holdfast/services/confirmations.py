"""Deciding a confirmation. The row is set first, by compare-and-set; only then is anybody told anything.

Whatever locks several rows takes them in one order: conversation, run, confirmation, tool call.
"""

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.confirmations import (
    Confirmation,
    ConfirmationKind,
    ConfirmationStatus,
    Decision,
    arguments_digest,
    canonical_digest,
)
from holdfast.domain.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidInput,
    NotFound,
    PermissionMissing,
    Unavailable,
)
from holdfast.domain.json_schema import JsonSchema, SchemaUnusable
from holdfast.domain.permissions import Caller, Permission, roles_giving
from holdfast.domain.storable import is_storable
from holdfast.services.budgets import raise_as_asked
from holdfast.services.confirmation_endings import expire_or_escalate, go_on, settle_call, tell_decided
from holdfast.services.refusals import Asked, recording_refusals
from holdfast.store import confirmations, outbox, runs, tool_calls
from holdfast.store.engine import Database
from holdfast.temporal.client import MessageWorkflows

log = logging.getLogger(__name__)

#: How many confirmations can be decided at once.
MAX_AT_ONCE = 100


@dataclass(frozen=True)
class Decided:
    """What a person decides. `arguments_digest` is that of the arguments they were shown.

    `arguments` are the new ones of an edit; `reason` is told to the model, and is the answer of a respond.
    """

    decision: Decision
    arguments_digest: str
    reason: str | None = None
    arguments: dict[str, Any] | None = None
    via: str = "api"


class Confirmations:
    """Reads confirmations and decides them."""

    def __init__(self, database: Database, workflows: MessageWorkflows) -> None:
        self._database = database
        self._workflows = workflows

    async def get(self, caller: Caller, confirmation_id: str) -> Confirmation:
        """One confirmation.

        Raises:
            NotFound: the caller sees none with this id.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            return await _find(connection, caller, confirmation_id, Permission.CONFIRMATIONS_READ)

    async def page(
        self,
        caller: Caller,
        *,
        status: ConfirmationStatus | None,
        run_id: str | None,
        after: str | None,
        limit: int,
    ) -> list[Confirmation]:
        """A page of the confirmations that the caller sees, oldest first."""
        tenant_id, view = caller.tenant_id, caller.view(Permission.CONFIRMATIONS_READ)
        async with self._database.tenant(tenant_id) as connection:
            return await confirmations.page(
                connection, tenant_id, view, status=status, run_id=run_id, after=after, limit=limit
            )

    async def decide(self, caller: Caller, confirmation_id: str, decided: Decided) -> Confirmation:
        """Decide a confirmation; the same decision by the same person again answers alike.

        Raises:
            NotFound: the caller may decide none with this id.
            Forbidden: the person has none of the roles that may decide, or it is their own request.
            DigestMismatch: the arguments are not those the person was shown.
            InvalidInput: an edit's arguments don't fit, or a respond has no answer.
            Conflict: it was decided otherwise, or has expired.
            Unavailable: the database does not answer; nothing was decided.
        """
        (confirmation,) = await self.decide_all(caller, [(confirmation_id, decided)])
        return confirmation

    async def decide_all(self, caller: Caller, decisions: Sequence[tuple[str, Decided]]) -> list[Confirmation]:
        """Decide several confirmations, all of them or none; answers in their order.

        Raises:
            HoldfastError: as `decide` does, for the first that can't be decided; a refusal is on record.
        """
        async with recording_refusals(self._database, caller, Asked("decide")) as asked:
            if not caller.may(Permission.CONFIRMATIONS_DECIDE):
                raise PermissionMissing(f"Your roles don't give the permission {Permission.CONFIRMATIONS_DECIDE}.")
            return await self._decide_all(caller, decisions, asked)

    async def _decide_all(
        self, caller: Caller, decisions: Sequence[tuple[str, Decided]], asked: Asked
    ) -> list[Confirmation]:
        if len({confirmation_id for confirmation_id, _ in decisions}) < len(decisions):
            raise InvalidInput("decisions", "Each confirmation can be named once.")
        settled: dict[str, Confirmation] = {}
        woken: list[tuple[str, str]] = []
        obstacle: Conflict | None = None
        async with self._database.tenant(caller.tenant_id) as connection:
            # In one order for everybody, so that two batches never wait for each other.
            in_order = sorted(decisions, key=lambda one: one[0])
            found = [await _to_decide(connection, caller, confirmation_id) for confirmation_id, _ in in_order]
            await runs.lock(connection, caller.tenant_id, *(confirmation.run_id for confirmation in found))
            for known, (confirmation_id, decided) in zip(found, in_order, strict=True):
                asked.subject_id, asked.run_id = confirmation_id, known.run_id
                asked.what, asked.via = decided.decision, decided.via
                try:
                    confirmation, workflow = await decide_in(connection, caller, confirmation_id, decided)
                except Conflict as conflict:
                    # What a lone caller is told of an expiry must last: it is stored here, where nothing else is.
                    if len(decisions) > 1:
                        raise
                    obstacle = conflict
                    break
                settled[confirmation_id] = confirmation
                if workflow is not None:
                    woken.append((workflow, confirmation_id))
        if obstacle is not None:
            raise obstacle
        for workflow, confirmation_id in woken:
            await wake(self._workflows, workflow, confirmation_id)
        return [settled[confirmation_id] for confirmation_id, _ in decisions]


async def wake(workflows: MessageWorkflows, workflow: str, confirmation_id: str) -> None:
    """Tell a workflow that a confirmation was decided, if Temporal answers; the relay does otherwise."""
    try:
        await workflows.wake_decided(workflow, confirmation_id)
    except Unavailable as error:
        log.warning("decision on %s is stored and will be told by the relay: %s", confirmation_id, error)


async def decide_in(
    connection: AsyncConnection, caller: Caller, confirmation_id: str, decided: Decided
) -> tuple[Confirmation, str | None]:
    """Decide within a transaction that has locked the run; answers with the confirmation, and the workflow to be woken
    once it is committed.

    Raises:
        HoldfastError: as `Confirmations.decide` does.
    """
    tenant_id = caller.tenant_id
    confirmation = await _to_decide(connection, caller, confirmation_id)
    if confirmation.kind is ConfirmationKind.OUTCOME:
        raise Conflict("This call was dispatched; say what became of it: POST /v1/tool-calls/{id}/resolution.")
    check_right(caller, confirmation)
    if not hmac.compare_digest(confirmation.arguments_digest, decided.arguments_digest):
        raise DigestMismatch("The arguments that wait for confirmation are not those of this digest.")
    verdict = _verdict(caller, confirmation, decided)
    if await _store(connection, tenant_id, confirmation, verdict):
        workflow = await confirmations.workflow_of(connection, tenant_id, confirmation_id)
        await outbox.add_decided(connection, tenant_id, confirmation_id, workflow)
        return await _to_decide(connection, caller, confirmation_id), workflow
    confirmation = await _to_decide(connection, caller, confirmation_id)
    if _is_repeat(confirmation, verdict):
        return confirmation, None
    raise Conflict(what_stands(confirmation))


@dataclass(frozen=True)
class Asking:
    """Who may decide, where no confirmation says it: see `Confirmation`."""

    approvers: tuple[str, ...]
    four_eyes: bool
    requested_by: str
    sent_by: str


def check_right(caller: Caller, confirmation: Confirmation | Asking) -> None:
    """Check that a person may decide.

    Raises:
        Forbidden: they have none of the approvers' roles, or four eyes are wanted and it is their own request.
    """
    if confirmation.approvers and not caller.roles & set(confirmation.approvers):
        raise Forbidden(f"To decide this, one of these roles is needed: {', '.join(confirmation.approvers)}.")
    if confirmation.four_eyes and caller.is_one_of(confirmation.requested_by, confirmation.sent_by):
        raise Forbidden("This is your own request; somebody else must decide it.")


def roles_of_token(caller: Caller, confirmation: Confirmation, permission: Permission) -> list[str] | None:
    """The roles of a caller's token that count for a decision: what gives the permission, and what the policy asks for.

    None: the caller came without a token.
    """
    if not caller.has_token:
        return None
    return sorted(caller.roles & {*confirmation.approvers, *roles_giving(permission)})


def may_decide(caller: Caller, confirmation: Confirmation) -> bool:
    """Whether a person may decide."""
    if not caller.may(Permission.CONFIRMATIONS_DECIDE):
        return False
    try:
        check_right(caller, confirmation)
    except Forbidden:
        return False
    return True


def _verdict(caller: Caller, confirmation: Confirmation, decided: Decided) -> confirmations.Verdict:
    verdict = confirmations.Verdict(
        status=decided.decision.status,
        decision=decided.decision,
        arguments_digest=decided.arguments_digest,
        decided_by=caller.person,
        decided_via=decided.via,
        decided_roles=roles_of_token(caller, confirmation, Permission.CONFIRMATIONS_DECIDE),
        reason=decided.reason,
    )
    if confirmation.kind is ConfirmationKind.BUDGET and decided.decision not in (Decision.APPROVE, Decision.REJECT):
        raise InvalidInput("decision", "A budget is raised as it is asked, or not: approve or reject.")
    if decided.decision is Decision.RESPOND and not (decided.reason or "").strip():
        raise InvalidInput("reason", "A respond needs an answer for the model, in `reason`.")
    if not is_storable(decided.reason):
        raise InvalidInput("reason", "It holds a NUL or half a surrogate pair.")
    if decided.decision is not Decision.EDIT:
        if decided.arguments is not None:
            raise InvalidInput("arguments", "Only an edit takes arguments.")
        return verdict
    if decided.arguments is None:
        raise InvalidInput("arguments", "An edit needs the new arguments.")
    if not is_storable(decided.arguments):
        raise InvalidInput("arguments", "They hold a NUL or half a surrogate pair, or are nested too deeply.")
    arguments = _fitted(confirmation, decided.arguments)
    return replace(
        verdict,
        edited_arguments=arguments,
        edited_digest=_edited_digest(caller.tenant_id, confirmation, arguments),
    )


def _fitted(confirmation: Confirmation, arguments: dict[str, Any]) -> dict[str, Any]:
    """A person's arguments with the tool's defaults filled in. What runs is checked once more, by the tool itself."""
    if confirmation.arguments_schema is None:
        raise InvalidInput("decision", "The arguments of this call can't be edited; reject it instead.")
    try:
        wrong = JsonSchema(confirmation.arguments_schema).errors(arguments)
    except SchemaUnusable as unusable:
        raise InvalidInput("arguments", f"The tool's schema can't be applied: {unusable}") from None
    if wrong:
        raise InvalidInput("arguments", "; ".join(f"{path}: {what}" for path, what in wrong))
    properties = confirmation.arguments_schema.get("properties", {})
    # A part may be a mere True: anything goes.
    defaults = {
        name: part["default"] for name, part in properties.items() if isinstance(part, dict) and "default" in part
    }
    filled = {**defaults, **arguments}
    # In the order of the tool's signature, as a person was shown them.
    return {name: filled[name] for name in (*properties, *arguments) if name in filled}


def _edited_digest(tenant_id: str, confirmation: Confirmation, arguments: dict[str, Any]) -> str:
    try:
        return arguments_digest(
            tenant_id=tenant_id,
            run_id=confirmation.run_id,
            tool_call_id=confirmation.call,
            tool=confirmation.tool,
            schema_digest=canonical_digest(confirmation.arguments_schema),
            arguments=arguments,
        )
    except ValueError as error:
        raise InvalidInput("arguments", f"They can't be taken: {error}") from error


async def _to_decide(connection: AsyncConnection, caller: Caller, confirmation_id: str) -> Confirmation:
    return await _find(connection, caller, confirmation_id, Permission.CONFIRMATIONS_DECIDE)


async def _find(
    connection: AsyncConnection, caller: Caller, confirmation_id: str, permission: Permission
) -> Confirmation:
    view = caller.view(permission)
    confirmation = await confirmations.find(connection, caller.tenant_id, confirmation_id, view)
    if confirmation is None:
        raise NotFound("confirmation", confirmation_id)
    return confirmation


async def _store(
    connection: AsyncConnection, tenant_id: str, confirmation: Confirmation, verdict: confirmations.Verdict
) -> bool:
    confirmation_id = confirmation.confirmation_id
    if not await confirmations.decide(connection, tenant_id, confirmation_id, verdict):
        # Too late by the clock, while the deadline's timer has not been heard yet: what this caller is told must last.
        if not await confirmations.is_overdue(connection, tenant_id, confirmation_id):
            return False
        if await expire_or_escalate(connection, tenant_id, confirmation):
            return False
        # Further people are being asked from now on, and this one still is.
        if not await confirmations.decide(connection, tenant_id, confirmation_id, verdict):
            return False
    if verdict.edited_arguments is not None and verdict.edited_digest is not None:
        await tool_calls.edit(connection, tenant_id, confirmation.call, verdict.edited_arguments, verdict.edited_digest)
    await tell_decided(connection, tenant_id, confirmation, verdict)
    if confirmation.kind is ConfirmationKind.CALL:
        await settle_call(connection, tenant_id, confirmation, verdict)
    await go_on(connection, tenant_id, confirmation, verdict.status, verdict)
    if confirmation.kind is ConfirmationKind.BUDGET and verdict.decision is Decision.APPROVE:
        await raise_as_asked(connection, tenant_id, confirmation, verdict.decided_by)
    return True


def _is_repeat(confirmation: Confirmation, verdict: confirmations.Verdict) -> bool:
    return (confirmation.decision, confirmation.decided_by, confirmation.reason, confirmation.edited_arguments) == (
        verdict.decision,
        verdict.decided_by,
        verdict.reason,
        verdict.edited_arguments,
    )


def what_stands(confirmation: Confirmation) -> str:
    """Why a confirmation can't be decided any more, in a sentence."""
    if confirmation.status is ConfirmationStatus.EXPIRED:
        return f"The confirmation expired at {confirmation.deadline.isoformat()}."
    if confirmation.status is ConfirmationStatus.WITHDRAWN:
        return f"The confirmation was withdrawn: {confirmation.decided_via}."
    return f"The confirmation was {confirmation.status} by {confirmation.decided_by}."
