"""Erasure: what was said goes, and names; that something happened, and what came of it, stays on record.

It runs as the tables' owner, like `holdfast migrate`, in one transaction, and is itself on record.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import erased_line
from holdfast.domain.errors import ConfigurationError, NotFound
from holdfast.domain.ids import new_erasure_id
from holdfast.secrecy.erased_keys import ErasedKeys
from holdfast.store import audit, audit_chain, erasure, identities, tenants
from holdfast.store.engine import Database

_NO_RIGHT = "42501"


@dataclass(frozen=True)
class Scope:
    """What is to be erased of a tenant: all content and every name; or, of one `person`, their name, what they said
    and what agents said and did in their conversations; or the content of runs that ended `older_than` so long ago."""

    tenant_id: str
    person: str | None = None
    older_than: timedelta | None = None

    def __str__(self) -> str:
        # Not the name: it is being erased.
        if self.person is not None:
            return "by person"
        return "all of the tenant" if self.older_than is None else "by age"


@dataclass(frozen=True)
class Erased:
    """What was erased, and how many runs were left since they are open."""

    runs: int
    messages: int
    entries: int
    names: int
    left: int

    @property
    def is_nothing(self) -> bool:
        """Nothing was found of what is to be erased."""
        return not (self.runs or self.names or self.left)

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.messages} messages, {self.names} names, {self.entries} entries of the audit log; "
            f"{self.left} open runs left"
        )


async def erase(owner: Database, scope: Scope, keys: ErasedKeys, person: str) -> Erased:
    """Erase content and names. Done again, it finds what is new.

    Args:
        owner: the database, as the role that owns the tables.
        scope: what is to be erased.
        keys: what is left of idempotency keys.
        person: who erases.

    Raises:
        NotFound: there is no such tenant.
        ConfigurationError: the role may not do that.
        Unavailable: the database does not answer; nothing was erased.
    """
    try:
        async with owner.tenant(scope.tenant_id) as connection:
            return await _erase(connection, scope, keys, person)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NO_RIGHT:
            raise
        raise ConfigurationError(
            "HOLDFAST_DATABASE_OWNER_URL: the role may not erase; set it to the URL of the role that owns the tables"
        ) from None


async def _erase(connection: AsyncConnection, scope: Scope, keys: ErasedKeys, person: str) -> Erased:
    tenant_id, erasure_id = scope.tenant_id, new_erasure_id()
    if not await tenants.is_known(connection, tenant_id):
        raise NotFound("tenant", tenant_id)
    known_as = None
    if scope.person is not None:
        # Before the links go that tell them.
        known_as = sorted(await identities.known_as(connection, tenant_id, scope.person))
    listed, left = await erasure.list_runs(connection, tenant_id, names=known_as, older_than=scope.older_than)
    messages, entries = await erasure.erase_content(
        connection, tenant_id, erasure_id, key_secret=keys.secret(tenant_id)
    )
    names = 0
    # Who asked and who decided stays as long as somebody may ask for it; only what was said grows old.
    if scope.older_than is None:
        names = await erasure.erase_names(
            connection,
            tenant_id,
            erasure_id,
            names=known_as,
            secret=secrets.token_hex(32),
            is_any_left=left > 0,
        )
    erased = Erased(listed, messages, entries, names, left)
    entry = audit.Entry(
        kind="erasure",
        outcome="erased",
        subject_id=erasure_id,
        person=person,
        via="command line",
        detail=f"{scope}: {erased}",
        digests={"erased": await _digest_of_taken(connection, tenant_id, erasure_id)},
    )
    await audit.append(connection, tenant_id, entry)
    return erased


async def _digest_of_taken(connection: AsyncConnection, tenant_id: str, erasure_id: str) -> str:
    """The hash of what an erasure took of the audit log; whoever verifies the log makes it too."""
    taken = hashlib.sha256()
    async for seq, slot in audit_chain.taken(connection, tenant_id, erasure_id):
        taken.update(erased_line(seq, slot))
    return taken.hexdigest()
