"""Tenants: which there are."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_IS_KNOWN = text("SELECT EXISTS (SELECT FROM tenants WHERE tenant_id = :tenant_id)")

_ALL = text("SELECT tenant_id FROM tenants ORDER BY tenant_id")


async def is_known(connection: AsyncConnection, tenant_id: str) -> bool:
    """Whether there is such a tenant."""
    return bool(await connection.scalar(_IS_KNOWN, {"tenant_id": tenant_id}))


async def all_names(connection: AsyncConnection) -> list[str]:
    """Every tenant there is. Needs `Database.relay`."""
    return list(await connection.scalars(_ALL))
