"""The audit log: what was called, what was decided, what came of it. Never content: that stands with its noun."""

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.model_calls import Completion, Embeddings, failures
from holdfast.store.tables import audit

#: Without asking for the new row's number back.
_APPEND = insert(audit).inline()


@dataclass(frozen=True)
class Entry:
    """One line of the log. `subject_id`: what it is about.

    `kind`: model_call, tool_call, confirmation, run, budget, provider_key.
    """

    kind: str
    outcome: str
    run_id: str | None = None
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
    purpose: str | None = None
    usage_estimated: bool | None = None
    first_token_ms: int | None = None


def answered(
    call: Completion | Embeddings, *, run_id: str | None = None, step: int | None = None, purpose: str | None = None
) -> Entry:
    """A model call that was answered; why any deployment before the last did not answer stands in `detail`."""
    return Entry(
        kind="model_call",
        outcome="answered",
        run_id=run_id,
        step=step,
        purpose=purpose,
        alias=call.alias,
        model=call.model,
        deployment=call.deployment,
        prompt_tokens=call.usage.prompt_tokens,
        completion_tokens=call.usage.completion_tokens,
        cost_usd=call.usage.cost_usd,
        usage_estimated=call.usage.is_estimated,
        latency_ms=call.latency_ms,
        first_token_ms=call.first_token_ms if isinstance(call, Completion) else None,
        detail=failures(call.attempts),
    )


async def append(connection: AsyncConnection, tenant_id: str, *entries: Entry) -> None:
    """Write entries, in the transaction of what they record."""
    rows = [{"tenant_id": tenant_id, **vars(entry)} for entry in entries]
    # One row, the usual case, takes a round trip less than a list of one.
    await connection.execute(_APPEND, rows[0] if len(rows) == 1 else rows)
