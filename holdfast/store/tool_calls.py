"""The effect ledger: each tool call, from the model's wish to its known or unknown outcome.

A call is `dispatched` in the transaction that checks and uses up its approval, before the tool runs. Whoever finds it
`dispatched` later, with no result, can't know whether the effect happened; `activities/tools.py` says what follows.
`attempts` counts dispatches and fences them: a result is stored only by the attempt that was dispatched last.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Text, bindparam, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.events import ToolCallStarted, tool_call_now
from holdfast.domain.permissions import Permission, View, roles_giving
from holdfast.domain.tools import Effect, Idempotency, Terms, ToolCall, ToolCallStatus
from holdfast.store import event_log
from holdfast.store.tables.runs import confirmations, runs, tool_calls
from holdfast.store.views import of_runs_in

_SELECT = select(tool_calls, confirmations.c.confirmation_id).select_from(
    tool_calls.outerjoin(
        confirmations,
        (confirmations.c.tenant_id == tool_calls.c.tenant_id)
        & (confirmations.c.tool_call_id == tool_calls.c.tool_call_id)
        & (confirmations.c.kind == "call"),
    )
)

_COLUMNS = _SELECT.order_by(tool_calls.c.step, tool_calls.c.position)

_DISPATCH = text(f"""
WITH dispatched AS (
  UPDATE tool_calls SET status = 'dispatched', attempts = attempts + 1, dispatched_at = clock_timestamp()
  WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status IN ('approved', 'dispatched')
  RETURNING run_id, attempts
), {event_log.counted("dispatched")}, {event_log.logged()}
SELECT attempts FROM dispatched
""")

# What lets somebody decide: the roles of the token that they decided with, as they were then, since no later ones are
# known; or else those of any key or account of theirs that is not taken from them. A key that has merely expired since
# the decision was not taken from anybody; one that had expired before it gives nothing.
_RIGHTS = """
SELECT c.decided_roles AS roles WHERE c.decided_roles IS NOT NULL
UNION ALL
SELECT k.roles FROM api_keys k
LEFT JOIN identities i ON i.tenant_id = k.tenant_id AND i.kind = 'key' AND i.subject = k.key_id
WHERE c.decided_roles IS NULL AND k.tenant_id = c.tenant_id AND c.decided_by IN (k.person, i.principal)
  AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > c.decided_at)
UNION ALL
SELECT i.roles FROM identities i
WHERE c.decided_roles IS NULL AND i.tenant_id = c.tenant_id AND i.principal = c.decided_by AND i.kind = 'slack'
"""

# An approval is used once: the row must be approved, unused, bound to the digest that was just recomputed, and decided
# in time by somebody who may still decide. A call that was dispatched before needs a person's word to run it again.
_USE_APPROVAL = text(f"""
UPDATE confirmations c SET used_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND used_at IS NULL AND decided_at <= deadline
  AND CASE WHEN :attempts = 0 THEN kind = 'call' AND status = 'approved'
           ELSE kind = 'outcome' AND attempt = :attempts AND status = 'resolved' AND decision = 'run_again' END
  AND coalesce(edited_digest, arguments_digest) = :arguments_digest
  AND NOT (four_eyes AND decided_by IN (requested_by, sent_by))
  AND EXISTS (
    SELECT FROM ({_RIGHTS}) its WHERE roles && :deciding AND (c.approvers = '{{}}' OR roles && c.approvers)
  )
RETURNING confirmation_id
""").bindparams(bindparam("deciding", type_=ARRAY(Text)))

# An outcome that was given up as unknown may still come from the attempt that was dispatched last: it is the truth,
# unless somebody has settled it meanwhile. One from an attempt before that changes nothing.
_SETTLE = text(f"""
WITH settled AS (
  UPDATE tool_calls SET status = :status, result = :result, error = :error, settled_at = clock_timestamp()
  WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND attempts = :attempts
    AND (status = 'dispatched' OR status = 'ambiguous' AND :status <> 'ambiguous')
  RETURNING run_id
), {event_log.counted("settled")}, {event_log.logged()}
SELECT run_id FROM settled
""")

_RESOLVE = text("""
UPDATE tool_calls SET status = :status, result = :result, error = :error
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = 'ambiguous'
""")

_EDIT = text("""
UPDATE tool_calls SET arguments = :arguments, arguments_digest = :arguments_digest, edited = true
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = 'awaiting_confirmation'
""").bindparams(bindparam("arguments", type_=JSON))

_WAITED = text("""
SELECT extract(epoch FROM clock_timestamp() - dispatched_at) FROM tool_calls
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id
""")

_ABANDON = text("""
UPDATE tool_calls
SET status = CASE WHEN effect = 'read' AND status = 'dispatched' THEN 'failed' ELSE 'ambiguous' END,
    error = :error, settled_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND run_id = :run_id AND (status = 'dispatched' OR status = 'approved' AND attempts > 0)
RETURNING step, tool_call_id, tool, attempts, status
""")

_COUNT_DISPATCHABLE = text("""
SELECT count(*) FROM tool_calls
WHERE tenant_id = :tenant_id AND run_id = :run_id AND (attempts > 0 OR status NOT IN ('denied', 'failed'))
""")

_MOVE = text("""
UPDATE tool_calls SET status = :to, result = :result, error = :error
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = :before
""")

_WITHDRAW = text("""
UPDATE tool_calls SET status = 'withdrawn', error = :error
WHERE tenant_id = :tenant_id AND run_id = :run_id AND attempts = 0
  AND status IN ('proposed', 'awaiting_confirmation', 'approved')
RETURNING step, tool_call_id, tool, attempts, status
""")


@dataclass(frozen=True)
class Proposal:
    """A tool call about to enter the ledger."""

    tool_call_id: str
    run_id: str
    step: int
    position: int
    tool: str
    arguments_raw: str
    arguments: dict[str, Any] | None
    arguments_digest: str | None
    status: ToolCallStatus
    effect: Effect
    idempotency: Idempotency
    timeout_s: float
    max_attempts: int
    rule: str
    error: str | None
    by_client: bool = False


async def propose(connection: AsyncConnection, tenant_id: str, proposals: list[Proposal]) -> None:
    """Enter the calls of one step, together with the step itself."""
    if proposals:
        await connection.execute(insert(tool_calls), [{"tenant_id": tenant_id, **vars(call)} for call in proposals])


async def find(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> ToolCall:
    """A call that is known to exist."""
    query = _COLUMNS.where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id)
    return _from_row((await connection.execute(query)).one())


async def lock(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> ToolCall:
    """A call that is known to exist, its run and its row locked, in this order, until the transaction ends."""
    of_run = (runs.c.tenant_id == tool_calls.c.tenant_id) & (runs.c.run_id == tool_calls.c.run_id)
    query = _COLUMNS.where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id, of_run)
    locking = query.with_for_update(of=[runs, tool_calls], key_share=True)
    return _from_row((await connection.execute(locking)).one())


async def of_step(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> list[ToolCall]:
    """The calls of one step of a run, in order."""
    query = _COLUMNS.where(
        tool_calls.c.tenant_id == tenant_id, tool_calls.c.run_id == run_id, tool_calls.c.step == step
    )
    return [_from_row(row) for row in await connection.execute(query)]


async def of_runs(connection: AsyncConnection, tenant_id: str, run_ids: list[str]) -> list[ToolCall]:
    """The calls of some runs, in order."""
    query = _COLUMNS.where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.run_id.in_(run_ids))
    return [_from_row(row) for row in await connection.execute(query)]


async def dispatch(connection: AsyncConnection, tenant_id: str, call: ToolCall) -> int:
    """Mark a locked call as dispatched once more; answers with the number of this dispatch, from 1."""
    started = ToolCallStarted(call.tool_call_id, call.tool, call.attempts + 1)
    of_call = {"tenant_id": tenant_id, "tool_call_id": call.tool_call_id}
    dispatched = await connection.execute(_DISPATCH, {**of_call, **event_log.parameters([started])})
    attempts: int = dispatched.scalar_one()
    event_log.grown(connection, call.run_id)
    return attempts


async def use_approval(connection: AsyncConnection, tenant_id: str, call: ToolCall, arguments_digest: str) -> bool:
    """Use up the approval of a call, or a person's word to run it again.

    False: there is none that is unused, in time, of these arguments and from somebody who may still give it.
    """
    values = {"tenant_id": tenant_id, "tool_call_id": call.tool_call_id, "attempts": call.attempts}
    values["arguments_digest"] = arguments_digest
    values["deciding"] = roles_giving(
        Permission.TOOL_CALLS_RESOLVE if call.attempts else Permission.CONFIRMATIONS_DECIDE
    )
    return (await connection.execute(_USE_APPROVAL, values)).one_or_none() is not None


async def settle(
    connection: AsyncConnection,
    tenant_id: str,
    call: ToolCall,
    *,
    status: ToolCallStatus,
    result: str | None,
    error: str | None,
) -> bool:
    """Store the outcome of a dispatch. False: a later dispatch superseded it, and nothing was changed."""
    values = {"status": status, "result": result, "error": error, "attempts": call.attempts}
    told = tool_call_now(call.tool_call_id, call.tool, status, result=result, error=error)
    of_call = {"tenant_id": tenant_id, "tool_call_id": call.tool_call_id}
    settled = await connection.scalar(_SETTLE, {**of_call, **values, **event_log.parameters(told)})
    return event_log.grown(connection, settled)


async def move(
    connection: AsyncConnection,
    tenant_id: str,
    tool_call_id: str,
    *,
    before: ToolCallStatus,
    to: ToolCallStatus,
    result: str | None = None,
    error: str | None = None,
) -> bool:
    """Move a call from one status to another by compare-and-set. False: it was not in that status."""
    values = {"before": before, "to": to, "result": result, "error": error}
    values |= {"tenant_id": tenant_id, "tool_call_id": tool_call_id}
    return (await connection.execute(_MOVE, values)).rowcount == 1


async def edit(
    connection: AsyncConnection, tenant_id: str, tool_call_id: str, arguments: dict[str, Any], arguments_digest: str
) -> None:
    """Put a person's arguments in place of the model's, in a call that waits for confirmation."""
    values = {"arguments": arguments, "arguments_digest": arguments_digest}
    await connection.execute(_EDIT, {"tenant_id": tenant_id, "tool_call_id": tool_call_id, **values})


async def dispatched_for(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> timedelta:
    """How long ago a call was dispatched last."""
    of_call = {"tenant_id": tenant_id, "tool_call_id": tool_call_id}
    return timedelta(seconds=float(await connection.scalar(_WAITED, of_call) or 0))


@dataclass(frozen=True)
class Left:
    """A call that its run left behind: ambiguous, or failed if it only read; or withdrawn, if it was not handed out."""

    step: int
    tool_call_id: str
    tool: str
    attempts: int
    status: ToolCallStatus


async def abandon(connection: AsyncConnection, tenant_id: str, run_id: str, error: str) -> list[Left]:
    """Call the outcome of what was handed out in a run, and not heard of again, unknown; answers with each."""
    rows = await connection.execute(_ABANDON, {"tenant_id": tenant_id, "run_id": run_id, "error": error})
    return [_left(row) for row in rows]


async def count(connection: AsyncConnection, tenant_id: str, run_id: str) -> int:
    """How many calls a run has made or may still make: all but those that were refused at once."""
    return int(await connection.scalar(_COUNT_DISPATCHABLE, {"tenant_id": tenant_id, "run_id": run_id}) or 0)


async def page(
    connection: AsyncConnection,
    tenant_id: str,
    view: View,
    *,
    status: ToolCallStatus | None,
    after: str | None,
    limit: int,
) -> list[ToolCall]:
    """A page of calls, oldest first, from the one after `after` on."""
    in_view = _SELECT.where(tool_calls.c.tenant_id == tenant_id, of_runs_in(view, tool_calls))
    query = in_view.order_by(tool_calls.c.tool_call_id).limit(limit)
    if status is not None:
        query = query.where(tool_calls.c.status == status)
    if after is not None:
        query = query.where(tool_calls.c.tool_call_id > after)
    return [_from_row(row) for row in await connection.execute(query)]


async def find_any(connection: AsyncConnection, tenant_id: str, tool_call_id: str, view: View) -> ToolCall | None:
    """A call; None: there is none with this id in this view of the tenant."""
    in_view = _SELECT.where(tool_calls.c.tenant_id == tenant_id, of_runs_in(view, tool_calls))
    query = in_view.where(tool_calls.c.tool_call_id == tool_call_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def resolve(
    connection: AsyncConnection,
    tenant_id: str,
    tool_call_id: str,
    *,
    status: ToolCallStatus,
    result: str | None,
    error: str | None,
) -> bool:
    """Settle an unknown outcome by a person's word. False: it is not unknown (any more)."""
    values = {"status": status, "result": result, "error": error}
    of_call = {"tenant_id": tenant_id, "tool_call_id": tool_call_id}
    return (await connection.execute(_RESOLVE, {**of_call, **values})).rowcount == 1


async def withdraw(connection: AsyncConnection, tenant_id: str, run_id: str, error: str) -> list[Left]:
    """Withdraw the calls of a run that were not dispatched; none of them can be from here on. Answers with each."""
    rows = await connection.execute(_WITHDRAW, {"tenant_id": tenant_id, "run_id": run_id, "error": error})
    return [_left(row) for row in rows]


def _left(row: Any) -> Left:
    return Left(row.step, row.tool_call_id, row.tool, row.attempts, ToolCallStatus(row.status))


def _from_row(row: Any) -> ToolCall:
    return ToolCall(
        tool_call_id=row.tool_call_id,
        run_id=row.run_id,
        step=row.step,
        position=row.position,
        tool=row.tool,
        arguments=row.arguments,
        arguments_digest=row.arguments_digest,
        status=ToolCallStatus(row.status),
        terms=Terms(Effect(row.effect), Idempotency(row.idempotency), row.timeout_s, row.max_attempts),
        attempts=row.attempts,
        result=row.result,
        error=row.error,
        confirmation_id=row.confirmation_id,
        dispatched_at=row.dispatched_at,
        created_at=row.created_at,
        by_client=row.by_client,
    )
