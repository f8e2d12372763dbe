"""Tenants' keys of model providers, as they are kept: sealed. Who can open them is not this module's to know."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.store.tables.tenants import provider_keys, tenants


@dataclass(frozen=True)
class SealedKey:
    """One tenant's key of one provider. `key_id`: what opens it."""

    provider: str
    ciphertext: bytes
    key_id: str
    hint: str
    created_by: str
    created_at: datetime

    @classmethod
    def from_row(cls, row: Any) -> "SealedKey":
        return cls(row.provider, row.ciphertext, row.key_id, row.hint, row.created_by, row.created_at)


async def tenant_exists(connection: AsyncConnection, tenant_id: str) -> bool:
    """Whether there is such a tenant."""
    found = await connection.execute(select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id))
    return found.one_or_none() is not None


async def put(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    provider: str,
    ciphertext: bytes,
    key_id: str,
    hint: str,
    created_by: str,
) -> None:
    """Keep a key, in place of the one before."""
    values = {"ciphertext": ciphertext, "key_id": key_id, "hint": hint, "created_by": created_by}
    adding = insert(provider_keys).values(tenant_id=tenant_id, provider=provider, **values)
    await connection.execute(
        adding.on_conflict_do_update(
            index_elements=["tenant_id", "provider"], set_={**values, "created_at": func.clock_timestamp()}
        )
    )


async def remove(connection: AsyncConnection, tenant_id: str, provider: str) -> bool:
    """Forget a key. False: there was none."""
    gone = await connection.execute(
        delete(provider_keys)
        .where(provider_keys.c.tenant_id == tenant_id, provider_keys.c.provider == provider)
        .returning(provider_keys.c.provider)
    )
    return gone.one_or_none() is not None


async def all_of(connection: AsyncConnection, tenant_id: str) -> list[SealedKey]:
    """Every key of a tenant, by provider."""
    found = await connection.execute(
        select(provider_keys).where(provider_keys.c.tenant_id == tenant_id).order_by(provider_keys.c.provider)
    )
    return [SealedKey.from_row(row) for row in found]
