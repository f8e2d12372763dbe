"""Refusals on record: who asked for what they may not, or could not, have.

The transaction of what is refused is rolled back, so that a refusal is written in one of its own. A refusal that can't
be recorded is not given: the caller is told that the database is away, and asks again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast.domain.errors import Conflict, DigestMismatch, Forbidden, HoldfastError
from holdfast.domain.permissions import Caller
from holdfast.store import audit
from holdfast.store.engine import Database

_OUTCOMES: dict[type[HoldfastError], str] = {
    Forbidden: "forbidden",
    Conflict: "conflict",
    DigestMismatch: "digest_mismatch",
}


@dataclass
class Asked:
    """What was asked for: `what`, such as approve, of which subject, by which way."""

    what: str
    subject_id: str | None = None
    run_id: str | None = None
    via: str = "api"


@asynccontextmanager
async def recording_refusals(database: Database, caller: Caller, asked: Asked) -> AsyncIterator[Asked]:
    """Record what the block refuses; it may say better, as it goes, what was asked for."""
    try:
        yield asked
    except (Forbidden, Conflict, DigestMismatch) as refused:
        entry = audit.Entry(
            kind="refusal",
            outcome=next(outcome for kind, outcome in _OUTCOMES.items() if isinstance(refused, kind)),
            run_id=asked.run_id,
            subject_id=asked.subject_id,
            person=caller.person,
            via=asked.via,
            # Not the error's text, which may name somebody else.
            detail=asked.what,
        )
        async with database.tenant(caller.tenant_id) as connection:
            await audit.append(connection, caller.tenant_id, entry)
        raise
