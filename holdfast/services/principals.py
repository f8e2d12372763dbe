"""Links: which keys, tokens and accounts are the same person's. Four eyes and ownership go by them."""

from collections.abc import Callable, Collection

from holdfast.domain.errors import InvalidInput, NotFound
from holdfast.domain.permissions import Caller
from holdfast.domain.principals import MAX_NAME_CHARACTERS, Identity, IdentityKind, check_name, check_roles
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

    async def account(self, tenant_id: str, kind: IdentityKind, subject: str) -> Caller | None:
        """Who acts with an account that brings no roles of its own: those of its link, and no others.

        None: it is not linked.
        """
        async with self._database.tenant(tenant_id) as connection:
            linked = await identities.find(connection, tenant_id, kind, subject)
            if linked is None:
                return None
            person, names = await identities.names_of(connection, tenant_id, kind, subject, unlinked=linked.principal)
        return Caller(tenant_id, person, frozenset(linked.roles), names)

    async def link(
        self, caller: Caller, kind: IdentityKind, subject: str, principal: str, roles: Collection[str] = ()
    ) -> Identity:
        """Have an identity act as a principal, in place of any that it acts as now.

        Args:
            caller: who links it.
            kind: what it is.
            subject: which one.
            principal: who is to act with it.
            roles: what an account of Slack may do from now on, these and no others; a key and a token bring theirs.

        Raises:
            InvalidInput: the principal, the subject or a role is no name, or the roles are for a key or a token.
            NotFound: the tenant has no such key.
        """
        check_name("principal", principal)
        check_roles(roles)
        if roles and kind is not IdentityKind.SLACK:
            raise InvalidInput("roles", f"Only an account of Slack is given roles here: a {kind} brings its own.")
        if not subject.isprintable() or not 0 < len(subject) <= MAX_NAME_CHARACTERS:
            raise InvalidInput("subject", f"A subject has 1 to {MAX_NAME_CHARACTERS} characters that can be printed.")
        tenant_id = caller.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            if kind is IdentityKind.KEY and await keys.get(connection, tenant_id, subject) is None:
                raise NotFound("key", subject)
            if await identities.link(connection, tenant_id, kind, subject, principal, roles):
                await audit.append(connection, tenant_id, _entry(caller, "linked", kind, subject, roles))
            linked = await identities.find(connection, tenant_id, kind, subject)
        assert linked is not None
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


def _entry(caller: Caller, outcome: str, kind: IdentityKind, subject: str, roles: Collection[str] = ()) -> audit.Entry:
    return audit.Entry(
        kind="key",
        outcome=outcome,
        subject_id=subject if kind is IdentityKind.KEY else None,
        person=caller.person,
        # No names but the one of who did it: they stand with the link, where they can be erased.
        detail=": ".join(filter(None, (kind.value, ", ".join(sorted(set(roles)))))),
    )
