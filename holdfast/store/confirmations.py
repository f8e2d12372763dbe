"""Confirmations: exactly one of a decision and the deadline wins, by compare-and-set on the row.

Nobody is answered before the row is set, and whoever comes second reads what stands there. `decided_at <= deadline` is
judged by PostgreSQL's clock alone, so that no two clocks can disagree about who was in time.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, Select, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.agents import Escalation
from holdfast.domain.confirmations import Confirmation, ConfirmationKind, ConfirmationStatus, Decision, Resolution
from holdfast.domain.ids import new_confirmation_id, workflow_id
from holdfast.domain.permissions import View
from holdfast.store import changes
from holdfast.store.changes import STATUS, Change
from holdfast.store.tables.runs import confirmations
from holdfast.store.views import of_runs_in

_REQUEST = text("""
INSERT INTO confirmations (tenant_id, confirmation_id, kind, attempt, tool_call_id, run_id, conversation_id, agent,
                           tool, arguments, arguments_digest, arguments_schema, rule, requested_by, sent_by, approvers,
                           four_eyes, deadline, on_deadline, remind_at, escalate)
SELECT t.tenant_id, :confirmation_id, :kind, :attempt, t.tool_call_id, t.run_id, r.conversation_id, r.agent, t.tool,
       t.arguments, t.arguments_digest, :arguments_schema, :rule, r.requested_by, r.sent_by, :approvers, :four_eyes,
       moment + :deadline, :on_deadline, moment + :remind_after, :escalate
FROM tool_calls t JOIN runs r ON r.tenant_id = t.tenant_id AND r.run_id = t.run_id
CROSS JOIN LATERAL (SELECT clock_timestamp() AS moment) now
WHERE t.tenant_id = :tenant_id AND t.tool_call_id = :tool_call_id
ON CONFLICT (tenant_id, tool_call_id, kind, attempt) DO NOTHING
""").bindparams(
    bindparam("approvers", type_=ARRAY(Text)),
    bindparam("deadline", type_=Interval),
    bindparam("remind_after", type_=Interval),
    bindparam("escalate", type_=JSONB(none_as_null=True)),
    bindparam("arguments_schema", type_=JSON(none_as_null=True)),
)

_DECIDE = text("""
UPDATE confirmations SET status = :status, decision = :decision, decided_by = :decided_by, decided_via = :decided_via,
                         decided_at = clock_timestamp(), reason = :reason, edited_arguments = :edited_arguments,
                         edited_digest = :edited_digest, decided_roles = :decided_roles
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending'
  AND arguments_digest = :arguments_digest AND deadline > clock_timestamp()
RETURNING confirmation_id
""").bindparams(
    bindparam("edited_arguments", type_=JSON(none_as_null=True)), bindparam("decided_roles", type_=ARRAY(Text))
)

# Also where the deadline's timer fired a moment before PostgreSQL's clock reached it: the timer has then won the race.
_EXPIRE = text("""
UPDATE confirmations SET status = 'expired', decided_via = 'deadline', decided_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending'
RETURNING confirmation_id
""")

_WITHDRAW = """
UPDATE confirmations SET status = 'withdrawn', decided_via = :why, decided_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND {which} AND status = 'pending'
RETURNING *
"""
_WITHDRAW_OF_RUN = text(_WITHDRAW.format(which="run_id = :run_id"))
_WITHDRAW_ONE = text(_WITHDRAW.format(which="confirmation_id = :confirmation_id"))
_WITHDRAW_OF_CALL = text(_WITHDRAW.format(which="tool_call_id = :tool_call_id AND kind = 'outcome'"))
_WITHDRAW_OF_CONVERSATION = text(_WITHDRAW.format(which="conversation_id = :conversation_id AND kind = 'call'"))

_REMIND = text("""
UPDATE confirmations SET reminded_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending' AND reminded_at IS NULL
RETURNING confirmation_id
""")

# Further people are asked, for so long after the first deadline; what happens then is what the escalation says.
_ESCALATE = text("""
UPDATE confirmations
SET escalated_at = clock_timestamp(), deadline = greatest(deadline, clock_timestamp()) + :longer,
    on_deadline = :on_deadline, approvers = approvers || CAST(:further AS text[])
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id AND status = 'pending'
  AND on_deadline = 'escalate'
RETURNING confirmation_id
""").bindparams(bindparam("longer", type_=Interval), bindparam("further", type_=ARRAY(Text)))

_PENDING_IN_CONVERSATION = text("""
SELECT * FROM confirmations
WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND status = 'pending' AND kind = 'call'
ORDER BY confirmation_id
""")

_IS_OVERDUE = text("""
SELECT deadline <= clock_timestamp() FROM confirmations
WHERE tenant_id = :tenant_id AND confirmation_id = :confirmation_id
""")

# Whether the run waits depends on other confirmations of it, which other transactions may be changing: each locks the
# run first of all, and so sees what the one before has committed. Whoever waits for the reply learns that a person is
# asked first.
_MARK_WAITING = text("""
UPDATE runs SET status = 'requires_confirmation'
WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'running' RETURNING run_id
""")

_MARK_RUNNING_AGAIN = text("""
UPDATE runs SET status = 'running'
WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'requires_confirmation'
  AND NOT EXISTS (
    SELECT FROM confirmations WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'pending'
  )
""")

_WORKFLOW = text("""
SELECT r.agent, r.message_id FROM confirmations c JOIN runs r ON r.tenant_id = c.tenant_id AND r.run_id = c.run_id
WHERE c.tenant_id = :tenant_id AND c.confirmation_id = :confirmation_id
""")


@dataclass(frozen=True)
class Verdict:
    """A decision about to be stored. `decided_via` names the way it came: api or chat.

    `decided_roles`: the roles of a token that it was made with; None: it was made with a key or an account, which is
    looked at again when the call is dispatched.
    """

    status: ConfirmationStatus
    decision: Decision | Resolution
    arguments_digest: str
    decided_by: str
    decided_via: str
    decided_roles: list[str] | None
    reason: str | None
    edited_arguments: dict[str, Any] | None = None
    edited_digest: str | None = None


@dataclass(frozen=True)
class Question:
    """What a person is to be asked of a call. `attempt`: the dispatch whose outcome is unknown; 0 before any."""

    kind: ConfirmationKind
    tool_call_id: str
    rule: str
    deadline: timedelta
    on_deadline: str
    attempt: int = 0
    arguments_schema: dict[str, Any] | None = None
    remind_after: timedelta | None = None
    escalate: dict[str, Any] | None = None
    approvers: tuple[str, ...] = ()
    four_eyes: bool = False


async def request(connection: AsyncConnection, tenant_id: str, question: Question) -> Confirmation:
    """Ask a person, once: asked again, the first confirmation stands. Answers with it."""
    values = {**vars(question), "confirmation_id": new_confirmation_id(), "approvers": list(question.approvers)}
    await connection.execute(_REQUEST, {"tenant_id": tenant_id, **values})
    query = select(confirmations).where(
        confirmations.c.tenant_id == tenant_id,
        confirmations.c.tool_call_id == question.tool_call_id,
        confirmations.c.kind == question.kind,
        confirmations.c.attempt == question.attempt,
    )
    return confirmation_from_row((await connection.execute(query)).one())


async def decide(connection: AsyncConnection, tenant_id: str, confirmation_id: str, verdict: Verdict) -> bool:
    """Store a decision. False: it was not pending any more, or too late, or of other arguments."""
    values = {**vars(verdict), "tenant_id": tenant_id, "confirmation_id": confirmation_id}
    return (await connection.execute(_DECIDE, values)).one_or_none() is not None


async def remind(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> bool:
    """Take note that the people were reminded. False: they were before, or there is nothing to decide any more."""
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    return (await connection.execute(_REMIND, of_one)).one_or_none() is not None


async def escalate(connection: AsyncConnection, tenant_id: str, confirmation: Confirmation) -> bool:
    """Ask further people, until a second deadline. False: it is not pending, or not to be escalated (any more)."""
    if confirmation.escalate is None:
        return False
    further = confirmation.escalate
    values = {"longer": further.deadline, "further": list(further.to), "on_deadline": further.on_deadline}
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation.confirmation_id}
    return (await connection.execute(_ESCALATE, {**of_one, **values})).one_or_none() is not None


async def expire(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> bool:
    """Expire a confirmation. False: it was decided, or expired, before."""
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    return (await connection.execute(_EXPIRE, of_one)).one_or_none() is not None


async def withdraw_of_run(connection: AsyncConnection, tenant_id: str, run_id: str) -> list[Confirmation]:
    """Withdraw what is pending of a run; answers with what was."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "why": "run ended"}
    return [confirmation_from_row(row) for row in await connection.execute(_WITHDRAW_OF_RUN, values)]


async def withdraw_one(
    connection: AsyncConnection, tenant_id: str, confirmation_id: str, why: str
) -> list[Confirmation]:
    """Withdraw a confirmation; answers with it, if it was pending."""
    values = {"tenant_id": tenant_id, "confirmation_id": confirmation_id, "why": why}
    return [confirmation_from_row(row) for row in await connection.execute(_WITHDRAW_ONE, values)]


async def withdraw_of_call(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> list[Confirmation]:
    """Withdraw the question for a call's outcome, since that has come by itself; answers with what was pending."""
    values = {"tenant_id": tenant_id, "tool_call_id": tool_call_id, "why": "outcome came late"}
    return [confirmation_from_row(row) for row in await connection.execute(_WITHDRAW_OF_CALL, values)]


async def withdraw_in_conversation(
    connection: AsyncConnection, tenant_id: str, conversation_id: str
) -> list[Confirmation]:
    """Withdraw the calls that wait in a conversation, since its user has written again; answers with them."""
    values = {"tenant_id": tenant_id, "conversation_id": conversation_id, "why": "new message"}
    return [confirmation_from_row(row) for row in await connection.execute(_WITHDRAW_OF_CONVERSATION, values)]


async def pending_in_conversation(
    connection: AsyncConnection, tenant_id: str, conversation_id: str
) -> list[Confirmation]:
    """The calls of a conversation that wait for a person."""
    values = {"tenant_id": tenant_id, "conversation_id": conversation_id}
    return [confirmation_from_row(row) for row in await connection.execute(_PENDING_IN_CONVERSATION, values)]


async def outcome_asked(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> Confirmation | None:
    """The newest question for a call's outcome, decided or not; None: nobody was asked."""
    query = (
        select(confirmations)
        .where(
            confirmations.c.tenant_id == tenant_id,
            confirmations.c.tool_call_id == tool_call_id,
            confirmations.c.kind == ConfirmationKind.OUTCOME,
        )
        .order_by(confirmations.c.attempt.desc())
        .limit(1)
    )
    return await found_by(connection, query)


async def is_overdue(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> bool:
    """Whether the deadline has passed, by PostgreSQL's clock."""
    return bool(await connection.scalar(_IS_OVERDUE, {"tenant_id": tenant_id, "confirmation_id": confirmation_id}))


async def mark_run_waiting(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run, which is locked, waits for a person."""
    if await connection.scalar(_MARK_WAITING, {"tenant_id": tenant_id, "run_id": run_id}) is not None:
        changes.note(connection, Change(STATUS, run_id))


async def mark_run_going_on(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """The run, which is locked, goes on, unless another of its confirmations is pending."""
    await connection.execute(_MARK_RUNNING_AGAIN, {"tenant_id": tenant_id, "run_id": run_id})


async def workflow_of(connection: AsyncConnection, tenant_id: str, confirmation_id: str) -> str:
    """The workflow that waits for a confirmation."""
    of_one = {"tenant_id": tenant_id, "confirmation_id": confirmation_id}
    row = (await connection.execute(_WORKFLOW, of_one)).one()
    return workflow_id(tenant_id, row.agent, row.message_id)


async def find(connection: AsyncConnection, tenant_id: str, confirmation_id: str, view: View) -> Confirmation | None:
    """A confirmation; None: there is none with this id in this view of the tenant."""
    query = select(confirmations).where(
        confirmations.c.tenant_id == tenant_id,
        confirmations.c.confirmation_id == confirmation_id,
        of_runs_in(view, confirmations),
    )
    return await found_by(connection, query)


async def page(
    connection: AsyncConnection,
    tenant_id: str,
    view: View,
    *,
    status: ConfirmationStatus | None,
    run_id: str | None,
    after: str | None,
    limit: int,
) -> list[Confirmation]:
    """A page of confirmations, oldest first, from the one after `after` on."""
    query = (
        select(confirmations)
        .where(confirmations.c.tenant_id == tenant_id, of_runs_in(view, confirmations))
        .order_by(confirmations.c.confirmation_id)
        .limit(limit)
    )
    if status is not None:
        query = query.where(confirmations.c.status == status)
    if run_id is not None:
        query = query.where(confirmations.c.run_id == run_id)
    if after is not None:
        query = query.where(confirmations.c.confirmation_id > after)
    return [confirmation_from_row(row) for row in await connection.execute(query)]


async def found_by(connection: AsyncConnection, query: Select[Any]) -> Confirmation | None:
    """The confirmation that a query finds; None: it finds none. It must find no two."""
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else confirmation_from_row(row)


def confirmation_from_row(row: Any) -> Confirmation:
    """A row of `confirmations` as a record."""
    return Confirmation(
        confirmation_id=row.confirmation_id,
        kind=ConfirmationKind(row.kind),
        tool_call_id=row.tool_call_id,
        run_id=row.run_id,
        conversation_id=row.conversation_id,
        agent=row.agent,
        tool=row.tool,
        arguments=row.arguments,
        arguments_digest=row.arguments_digest,
        arguments_schema=row.arguments_schema,
        rule=row.rule,
        requested_by=row.requested_by,
        sent_by=row.sent_by,
        approvers=tuple(row.approvers),
        four_eyes=row.four_eyes,
        deadline=row.deadline,
        on_deadline=row.on_deadline,
        remind_at=row.remind_at,
        reminded_at=row.reminded_at,
        escalate=None if row.escalate is None else Escalation.model_validate(row.escalate),
        escalated_at=row.escalated_at,
        status=ConfirmationStatus(row.status),
        decision=_decision(row.kind, row.decision),
        edited_arguments=row.edited_arguments,
        decided_by=row.decided_by,
        decided_via=row.decided_via,
        decided_at=row.decided_at,
        reason=row.reason,
        created_at=row.created_at,
    )


def _decision(kind: str, stored: str | None) -> Decision | Resolution | None:
    if stored is None:
        return None
    return Resolution(stored) if kind == ConfirmationKind.OUTCOME else Decision(stored)
