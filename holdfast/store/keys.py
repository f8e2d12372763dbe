"""Tenants and their API keys. A key itself is never stored, only its HMAC."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.store.tables import api_keys, tenants


async def add_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    """Make a tenant, if it is not there yet."""
    await connection.execute(insert(tenants).values(tenant_id=tenant_id).on_conflict_do_nothing())


async def has_tenant(connection: AsyncConnection, tenant_id: str) -> bool:
    """Whether there is such a tenant."""
    return await connection.scalar(select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id)) is not None


async def add(
    connection: AsyncConnection, tenant_id: str, key_id: str, key_hash: bytes, person: str, roles: list[str]
) -> None:
    """Store a key by its hash."""
    values = {"tenant_id": tenant_id, "key_id": key_id, "key_hash": key_hash, "person": person, "roles": roles}
    await connection.execute(insert(api_keys).values(values))


async def find(connection: AsyncConnection, key_hash: bytes) -> Any | None:
    """The key with this hash: tenant_id, key_id, key_hash, person, roles. Needs `Database.key_lookup`."""
    return (await connection.execute(select(api_keys).where(api_keys.c.key_hash == key_hash))).one_or_none()
