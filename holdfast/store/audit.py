"""The audit log: what was called, what was decided, what came of it. Never content: that stands with its noun.

Of content an entry keeps a commitment, so that what is changed in its own table later is found. When the transaction
commits, a trigger adds each of its entries to the tenant's hash chain: see `holdfast.store.audit_chain`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import ERASABLE, Kind, commitment, new_salt
from holdfast.domain.model_calls import Completion, Embeddings, failures
from holdfast.store.tables.record import audit

#: Without asking for the new row's number back.
_APPEND = insert(audit).inline()


@dataclass(frozen=True)
class Entry:
    """One line of the log. `kind`: see `holdfast.domain.audit`; `subject_id`: what it is about.

    `via`: the way it came, such as api or chat. `attempt`: which dispatch of a tool call. `content`: what was said,
    by the name of what holds it; not kept, but committed to. `digests`: of what is no secret, and needs no salt.
    """

    kind: Kind
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
    via: str | None = None
    attempt: int | None = None
    content: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def answered(
    call: Completion | Embeddings,
    *,
    run_id: str | None = None,
    step: int | None = None,
    purpose: str | None = None,
    text: str | None = None,
) -> Entry:
    """A model call that was answered; why any deployment before the last did not answer stands in `detail`.

    `text`: what is stored of the answer, for a call of a run.
    """
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
        content={} if text is None else {"text": text},
    )


async def append(connection: AsyncConnection, tenant_id: str, *entries: Entry) -> None:
    """Write entries, in the transaction of what they record."""
    rows = [_row(tenant_id, entry) for entry in entries]
    if not rows:
        return
    # One row, the usual case, takes a round trip less than a list of one.
    await connection.execute(_APPEND, rows[0] if len(rows) == 1 else rows)


def _row(tenant_id: str, entry: Entry) -> dict[str, Any]:
    row = {"tenant_id": tenant_id, **vars(entry)}
    kept = {slot: row[slot] for slot in ERASABLE if row[slot] is not None}
    committed: dict[str, str] = {**kept, **row.pop("content")}
    row["salts"] = {slot: new_salt() for slot in committed}
    salted = {slot: commitment(row["salts"][slot], slot, value) for slot, value in committed.items()}
    row["digests"] = {**entry.digests, **salted}
    return row
