"""Tenants: their names."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ALL = text("SELECT tenant_id FROM tenants ORDER BY tenant_id")


async def all_names(connection: AsyncConnection) -> list[str]:
    """Every tenant there is. Needs `Database.relay`."""
    return list(await connection.scalars(_ALL))
