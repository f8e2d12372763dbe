"""Tenants and their API keys. A key itself is never stored, only its HMAC."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.principals import ApiKey
from holdfast.store.tables.tenants import api_keys, tenants

_ADD = text("""
INSERT INTO api_keys (tenant_id, key_id, key_hash, person, roles, created_by, expires_at)
VALUES (:tenant_id, :key_id, :key_hash, :person, :roles, :created_by, clock_timestamp() + :expires_in)
""").bindparams(bindparam("expires_in", type_=Interval))

# Judged by PostgreSQL's clock, as every deadline is.
_FIND = text("""
SELECT *, extract(epoch FROM expires_at - clock_timestamp())::float8 AS expires_in_s,
       coalesce(last_used_at < clock_timestamp() - interval '1 minute', true) AS is_use_news
FROM api_keys WHERE key_hash = :key_hash
""")

_REVOKE = text("""
UPDATE api_keys SET revoked_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND key_id = :key_id AND revoked_at IS NULL RETURNING key_id
""")

# Also where several processes have seen the key at once, it is written once.
_NOTE_USE = text("""
UPDATE api_keys SET last_used_at = clock_timestamp()
WHERE tenant_id = :tenant_id AND key_id = :key_id
  AND coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)
""")


@dataclass(frozen=True)
class FoundKey:
    """A key that somebody has shown. `expires_in_s` None: never. `is_use_news`: its last use was not noted lately."""

    key: ApiKey
    key_hash: bytes
    expires_in_s: float | None
    is_use_news: bool


async def add_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    """Make a tenant, if it is not there yet."""
    await connection.execute(insert(tenants).values(tenant_id=tenant_id).on_conflict_do_nothing())


async def add(
    connection: AsyncConnection,
    tenant_id: str,
    key_id: str,
    key_hash: bytes,
    *,
    person: str,
    roles: list[str],
    created_by: str,
    expires_in: timedelta | None,
) -> None:
    """Store a key by its hash."""
    values = {"key_hash": key_hash, "person": person, "roles": roles, "created_by": created_by}
    of_key = {"tenant_id": tenant_id, "key_id": key_id, "expires_in": expires_in}
    await connection.execute(_ADD, {**of_key, **values})


async def find(connection: AsyncConnection, key_hash: bytes) -> FoundKey | None:
    """The key with this hash. Needs `Database.key_lookup`."""
    row = (await connection.execute(_FIND, {"key_hash": key_hash})).one_or_none()
    return None if row is None else FoundKey(_from_row(row), row.key_hash, row.expires_in_s, row.is_use_news)


async def get(connection: AsyncConnection, tenant_id: str, key_id: str) -> ApiKey | None:
    """The key with this id."""
    query = select(api_keys).where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def page(connection: AsyncConnection, tenant_id: str, *, after: str | None, limit: int) -> list[ApiKey]:
    """A page of keys, newest first, from the one after `after` on."""
    query = select(api_keys).where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.key_id.desc()).limit(limit)
    if after is not None:
        query = query.where(api_keys.c.key_id < after)
    return [_from_row(row) for row in await connection.execute(query)]


async def revoke(connection: AsyncConnection, tenant_id: str, key_id: str) -> bool:
    """Revoke a key. False: there is none, or it was revoked before."""
    return (await connection.execute(_REVOKE, {"tenant_id": tenant_id, "key_id": key_id})).one_or_none() is not None


async def note_use(connection: AsyncConnection, tenant_id: str, key_id: str) -> None:
    """Note that a key was used, unless that was done within the last minute."""
    await connection.execute(_NOTE_USE, {"tenant_id": tenant_id, "key_id": key_id})


async def set_roles(connection: AsyncConnection, tenant_id: str, key_id: str, roles: list[str]) -> None:
    """Give a key these roles in place of those it has."""
    of_key = (api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
    await connection.execute(api_keys.update().where(*of_key).values(roles=roles))


async def set_hash(connection: AsyncConnection, tenant_id: str, key_id: str, key_hash: bytes) -> None:
    """Store a key under another hash: that of another pepper."""
    of_key = (api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
    await connection.execute(api_keys.update().where(*of_key).values(key_hash=key_hash))


def _from_row(row: Any) -> ApiKey:
    return ApiKey(
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        person=row.person,
        roles=tuple(row.roles),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
