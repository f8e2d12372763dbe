"""Identities: which keys, tokens and accounts are one principal's."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.principals import Identity, IdentityKind
from holdfast.store.tables.tenants import identities

# Who acts with an identity, and under which names their other identities are known, or were before they were linked:
# a key under that of the person that it was made for.
_NAMES = text("""
WITH own AS (
  SELECT coalesce((SELECT principal FROM identities
                   WHERE tenant_id = :tenant_id AND kind = :kind AND subject = :subject), :unlinked) AS principal
)
SELECT own.principal,
       array_remove(array_agg(CASE i.kind WHEN 'key' THEN k.person ELSE i.kind || ':' || i.subject END), NULL) AS names
FROM own
LEFT JOIN identities i ON i.tenant_id = :tenant_id AND i.principal = own.principal
LEFT JOIN api_keys k ON k.tenant_id = i.tenant_id AND i.kind = 'key' AND k.key_id = i.subject
GROUP BY own.principal
""")


# A key's name is a person's if every key with that name is: of a name that others share, theirs is not known.
_KNOWN_AS = text("""
SELECT CASE i.kind WHEN 'key' THEN k.person ELSE i.kind || ':' || i.subject END AS name
FROM identities i
LEFT JOIN api_keys k ON k.tenant_id = i.tenant_id AND i.kind = 'key' AND k.key_id = i.subject
WHERE i.tenant_id = :tenant_id AND i.principal = :principal
  AND NOT EXISTS (
    SELECT FROM api_keys other
    WHERE other.tenant_id = i.tenant_id AND other.person = k.person AND other.person <> i.principal
      AND NOT EXISTS (
        SELECT FROM identities its
        WHERE its.tenant_id = other.tenant_id AND its.kind = 'key' AND its.subject = other.key_id
          AND its.principal = i.principal
      )
  )
""")


async def known_as(connection: AsyncConnection, tenant_id: str, principal: str) -> set[str]:
    """The names that are a principal's and nobody else's: their own, and those that they had before a link."""
    found = await connection.scalars(_KNOWN_AS, {"tenant_id": tenant_id, "principal": principal})
    return {principal, *(name for name in found if name is not None)}


async def names_of(
    connection: AsyncConnection, tenant_id: str, kind: IdentityKind, subject: str, unlinked: str
) -> tuple[str, frozenset[str]]:
    """The principal that acts with an identity, `unlinked` if it is linked to none, and all names of theirs."""
    values = {"tenant_id": tenant_id, "kind": kind, "subject": subject, "unlinked": unlinked}
    row = (await connection.execute(_NAMES, values)).one()
    return row.principal, frozenset(row.names)


async def link(
    connection: AsyncConnection,
    tenant_id: str,
    kind: IdentityKind,
    subject: str,
    principal: str,
    roles: Collection[str] = (),
) -> bool:
    """Link an identity to a principal, in place of what it may be linked to. False: it was to this one, like this."""
    of_identity = {"tenant_id": tenant_id, "kind": kind, "subject": subject}
    linked = {"principal": principal, "roles": sorted(set(roles))}
    statement = insert(identities).values(**linked, **of_identity)
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "kind", "subject"],
        set_=linked,
        where=(identities.c.principal != principal) | (identities.c.roles != statement.excluded.roles),
    )
    return (await connection.execute(statement.returning(identities.c.subject))).one_or_none() is not None


async def unlink(connection: AsyncConnection, tenant_id: str, kind: IdentityKind, subject: str) -> Identity | None:
    """Undo a link; answers with what it was, if there was one."""
    of_identity = _of(tenant_id, kind, subject)
    row = (await connection.execute(identities.delete().where(*of_identity).returning(identities))).one_or_none()
    return None if row is None else _from_row(row)


async def find(connection: AsyncConnection, tenant_id: str, kind: IdentityKind, subject: str) -> Identity | None:
    """The link of an identity, if it is linked."""
    query = select(identities).where(*_of(tenant_id, kind, subject))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def of_tenant(connection: AsyncConnection, tenant_id: str) -> list[Identity]:
    """Every link, by principal."""
    query = select(identities).where(identities.c.tenant_id == tenant_id)
    in_order = query.order_by(identities.c.principal, identities.c.kind, identities.c.subject)
    return [_from_row(row) for row in await connection.execute(in_order)]


def _of(tenant_id: str, kind: IdentityKind, subject: str) -> tuple[Any, ...]:
    return identities.c.tenant_id == tenant_id, identities.c.kind == kind, identities.c.subject == subject


def _from_row(row: Any) -> Identity:
    return Identity(IdentityKind(row.kind), row.subject, row.principal, row.created_at, tuple(row.roles))
