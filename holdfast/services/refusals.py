"""Refusals on record: who asked for what they may not, or could not, have.

The transaction of what is refused is rolled back, so that a refusal is written in one of its own. Where that can't be,
the caller of what is decided in the database is told that it is away, and asks again; whoever lacks the permission to
ask at all is refused all the same.
"""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast.domain.errors import Conflict, DigestMismatch, Forbidden, HoldfastError, Unavailable
from holdfast.domain.permissions import Caller, Permission
from holdfast.store import audit
from holdfast.store.engine import Database

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

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


class Refusals:
    """Records refusals for want of a permission."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, caller: Caller, permission: Permission, route: str, subject_id: str | None) -> None:
        """Record one. Where it can't be stored it is logged, and the caller refused all the same.

        Args:
            caller: who is refused.
            permission: what they lack.
            route: method and path, with the names of its parameters and not their values.
            subject_id: what it was about, as the path named it; what is no id is left out.
        """
        subject = subject_id if subject_id is not None and _ID.fullmatch(subject_id) else None
        entry = audit.Entry(
            kind="refusal",
            outcome="forbidden",
            subject_id=subject,
            person=caller.person,
            detail=f"{permission} is missing: {route}",
        )
        try:
            async with self._database.tenant(caller.tenant_id) as connection:
                await audit.append(connection, caller.tenant_id, entry)
        except Unavailable as error:
            log.warning("a refusal of %s to %r is not on record: %s", permission, caller.person, error)
