"""The effect ledger: each tool call, from the model's wish to its known or unknown outcome.

A call is `dispatched` in the transaction that checks and uses up its approval, before the tool runs. Whoever finds it
`dispatched` later, with no result, can't know whether the effect happened; `activities/tools.py` says what follows.
`attempts` counts dispatches and fences them: a result is stored only by the attempt that was dispatched last.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.tools import Effect, Idempotency, ToolCall, ToolCallStatus
from holdfast.store.tables import confirmations, tool_calls

_COLUMNS = (
    select(tool_calls, confirmations.c.confirmation_id)
    .select_from(
        tool_calls.outerjoin(
            confirmations,
            (confirmations.c.tenant_id == tool_calls.c.tenant_id)
            & (confirmations.c.tool_call_id == tool_calls.c.tool_call_id),
        )
    )
    .order_by(tool_calls.c.step, tool_calls.c.position)
)

_DISPATCH = text("""
UPDATE tool_calls SET status = 'dispatched', attempts = attempts + 1, dispatched_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status IN ('approved', 'dispatched')
RETURNING attempts
""")

# An approval is used once: the row must be approved, unused, and bound to the digest that was just recomputed.
_USE_APPROVAL = text("""
UPDATE confirmations SET used_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = 'approved' AND used_at IS NULL
  AND arguments_digest = :arguments_digest AND decided_at <= deadline
RETURNING confirmation_id
""")

_SETTLE = text("""
UPDATE tool_calls SET status = :status, result = :result, error = :error, settled_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = 'dispatched' AND attempts = :attempts
RETURNING step, tool
""")

_MOVE = text("""
UPDATE tool_calls SET status = :to, error = :error
WHERE tenant_id = :tenant_id AND tool_call_id = :tool_call_id AND status = :before
""")

_WITHDRAW = text("""
UPDATE tool_calls SET status = 'withdrawn', error = :error
WHERE tenant_id = :tenant_id AND run_id = :run_id AND status IN ('proposed', 'awaiting_confirmation', 'approved')
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
    rule: str
    error: str | None


async def propose(connection: AsyncConnection, tenant_id: str, proposals: list[Proposal]) -> None:
    """Enter the calls of one step, together with the step itself."""
    if proposals:
        await connection.execute(insert(tool_calls), [{"tenant_id": tenant_id, **vars(call)} for call in proposals])


async def find(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> ToolCall:
    """A call that is known to exist."""
    query = _COLUMNS.where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id)
    return _from_row((await connection.execute(query)).one())


async def lock(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> ToolCall:
    """A call that is known to exist, its row locked until the transaction ends."""
    query = _COLUMNS.where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id)
    return _from_row((await connection.execute(query.with_for_update(of=tool_calls))).one())


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


async def dispatch(connection: AsyncConnection, tenant_id: str, tool_call_id: str) -> int:
    """Mark a locked call as dispatched once more; answers with the number of this dispatch, from 1."""
    of_call = {"tenant_id": tenant_id, "tool_call_id": tool_call_id}
    attempts: int = (await connection.execute(_DISPATCH, of_call)).scalar_one()
    return attempts


async def use_approval(connection: AsyncConnection, tenant_id: str, tool_call_id: str, arguments_digest: str) -> bool:
    """Use up the approval of a call. False: there is none that is unused, in time and of these arguments."""
    values = {"tenant_id": tenant_id, "tool_call_id": tool_call_id, "arguments_digest": arguments_digest}
    return (await connection.execute(_USE_APPROVAL, values)).one_or_none() is not None


async def settle(
    connection: AsyncConnection,
    tenant_id: str,
    tool_call_id: str,
    *,
    attempts: int,
    status: ToolCallStatus,
    result: str | None,
    error: str | None,
) -> bool:
    """Store the outcome of a dispatch. False: a later dispatch superseded it, and nothing was changed."""
    values = {"status": status, "result": result, "error": error, "attempts": attempts}
    row = await connection.execute(_SETTLE, {"tenant_id": tenant_id, "tool_call_id": tool_call_id, **values})
    return row.one_or_none() is not None


async def move(
    connection: AsyncConnection,
    tenant_id: str,
    tool_call_id: str,
    *,
    before: ToolCallStatus,
    to: ToolCallStatus,
    error: str | None = None,
) -> bool:
    """Move a call from one status to another by compare-and-set. False: it was not in that status."""
    values = {"tenant_id": tenant_id, "tool_call_id": tool_call_id, "before": before, "to": to, "error": error}
    return (await connection.execute(_MOVE, values)).rowcount == 1


async def withdraw(connection: AsyncConnection, tenant_id: str, run_id: str, error: str) -> None:
    """Withdraw the calls of a run that were not dispatched; none of them can be from here on."""
    await connection.execute(_WITHDRAW, {"tenant_id": tenant_id, "run_id": run_id, "error": error})


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
        effect=Effect(row.effect),
        idempotency=Idempotency(row.idempotency),
        attempts=row.attempts,
        result=row.result,
        error=row.error,
        confirmation_id=row.confirmation_id,
        created_at=row.created_at,
    )
