"""The audit log: what was called, what was decided, what came of it. Never content: that stands with its noun."""

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.store.tables import audit

#: Without asking for the new row's number back.
_APPEND = insert(audit).inline()


@dataclass(frozen=True)
class Entry:
    """One line of the log. `kind` is model_call, tool_call, confirmation or run; `subject_id` what it is about."""

    kind: str
    outcome: str
    run_id: str
    step: int | None = None
    subject_id: str | None = None
    tool: str | None = None
    person: str | None = None
    alias: str | None = None
    model: str | None = None
    deployment: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: Decimal | None = None
    latency_ms: int | None = None
    detail: str | None = None


async def append(connection: AsyncConnection, tenant_id: str, *entries: Entry) -> None:
    """Write entries, in the transaction of what they record."""
    rows = [{"tenant_id": tenant_id, **vars(entry)} for entry in entries]
    # One row, the usual case, takes a round trip less than a list of one.
    await connection.execute(_APPEND, rows[0] if len(rows) == 1 else rows)
