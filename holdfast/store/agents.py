"""Agents, versioned: a run keeps the version it was accepted with."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.agents import AgentSpec, OnBusy
from holdfast.store.tables.tenants import agents

_LATEST_VERSION = text("SELECT max(version) FROM agents WHERE tenant_id = :tenant_id AND name = :name")

_RECEPTION = text("""
SELECT version, spec ->> 'on_busy' AS on_busy, spec -> 'confirmation' ->> 'on_message' AS on_message
FROM agents WHERE tenant_id = :tenant_id AND name = :name ORDER BY version DESC LIMIT 1
""")


@dataclass(frozen=True)
class Reception:
    """How the newest version of an agent takes a new message."""

    version: int
    on_busy: OnBusy
    withdraws: bool


async def latest_version(connection: AsyncConnection, tenant_id: str, name: str) -> int | None:
    """The newest version of an agent; None: the tenant has no such agent."""
    version: int | None = await connection.scalar(_LATEST_VERSION, {"tenant_id": tenant_id, "name": name})
    return version


async def reception(connection: AsyncConnection, tenant_id: str, name: str) -> Reception | None:
    """How an agent takes a new message; None: the tenant has no such agent."""
    row = (await connection.execute(_RECEPTION, {"tenant_id": tenant_id, "name": name})).one_or_none()
    if row is None:
        return None
    return Reception(row.version, OnBusy(row.on_busy or OnBusy.QUEUE), row.on_message == "withdraw")


async def load(connection: AsyncConnection, tenant_id: str, name: str, version: int) -> AgentSpec:
    """A version that is known to exist."""
    query = select(agents.c.spec).where(
        agents.c.tenant_id == tenant_id, agents.c.name == name, agents.c.version == version
    )
    return AgentSpec.model_validate((await connection.execute(query)).scalar_one())


async def add_version(connection: AsyncConnection, tenant_id: str, spec: AgentSpec, version: int) -> bool:
    """Store a version. False: somebody else has just stored one under this number."""
    values = {"tenant_id": tenant_id, "name": spec.name, "version": version, "spec": spec.model_dump(mode="json")}
    statement = insert(agents).values(values).on_conflict_do_nothing().returning(agents.c.version)
    return (await connection.execute(statement)).one_or_none() is not None


async def newest(connection: AsyncConnection, tenant_id: str) -> list[tuple[AgentSpec, int]]:
    """Every agent of a tenant with its newest version, by name."""
    query = (
        select(agents.c.spec, agents.c.version)
        .where(agents.c.tenant_id == tenant_id)
        .ext(distinct_on(agents.c.name))
        .order_by(agents.c.name, agents.c.version.desc())
    )
    rows: Any = await connection.execute(query)
    return [(AgentSpec.model_validate(row.spec), row.version) for row in rows]
