"""Links: which keys, tokens and accounts are the same person's. Four eyes and ownership go by them."""

from collections.abc import Callable

from holdfast.domain.errors import InvalidInput, NotFound
from holdfast.domain.permissions import Caller
from holdfast.domain.principals import MAX_NAME_CHARACTERS, Identity, IdentityKind, check_name
from holdfast.store import audit, identities, keys
from holdfast.store.engine import Database


class Principals:
    """The links of a tenant. `on_change`: has what is remembered of callers in this process forgotten."""

    def __init__(self, database: Database, on_change: Callable[[], None]) -> None:
        self._database = database
        self._on_change = on_change

    async def identities(self, tenant_id: str) -> list[Identity]:
        """Every identity that is linked, by principal."""
        async with self._database.tenant(tenant_id) as connection:
            return await identities.of_tenant(connection, tenant_id)

    async def link(self, caller: Caller, kind: IdentityKind, subject: str, principal: str) -> Identity:
        """Have an identity act as a principal, in place of any that it acts as now.

        Raises:
            InvalidInput: the principal or the subject is no name.
            NotFound: the tenant has no such key.
        """
        check_name("principal", principal)
        if not subject.isprintable() or not 0 < len(subject) <= MAX_NAME_CHARACTERS:
            raise InvalidInput("subject", f"A subject has 1 to {MAX_NAME_CHARACTERS} characters that can be printed.")
        tenant_id = caller.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            if kind is IdentityKind.KEY and await keys.get(connection, tenant_id, subject) is None:
                raise NotFound("key", subject)
            if await identities.link(connection, tenant_id, kind, subject, principal):
                await audit.append(connection, tenant_id, _entry(caller, "linked", kind, subject))
            linked = await identities.get(connection, tenant_id, kind, subject)
        self._on_change()
        return linked

    async def unlink(self, caller: Caller, kind: IdentityKind, subject: str) -> Identity:
        """Have an identity act for itself again; answers with the link that was.

        Raises:
            NotFound: it is not linked.
        """
        tenant_id = caller.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            was = await identities.unlink(connection, tenant_id, kind, subject)
            if was is None:
                raise NotFound("identity", kind.principal(subject))
            await audit.append(connection, tenant_id, _entry(caller, "unlinked", kind, subject))
        self._on_change()
        return was


def _entry(caller: Caller, outcome: str, kind: IdentityKind, subject: str) -> audit.Entry:
    return audit.Entry(
        kind="key",
        outcome=outcome,
        subject_id=subject if kind is IdentityKind.KEY else None,
        person=caller.person,
        # No names but the one of who did it: they stand with the link, where they can be erased.
        detail=kind.value,
    )
