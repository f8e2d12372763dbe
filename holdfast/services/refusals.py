"""What somebody wanted to change and may not is on record, too."""

import logging
import re

from holdfast.domain.errors import Unavailable
from holdfast.domain.permissions import Caller, Permission
from holdfast.store import audit
from holdfast.store.engine import Database

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


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
