"""Runs: reading them, one or a page."""

from typing import Any

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.runs import Run, RunStatus
from holdfast.store.tables import runs

_STATUS = text("SELECT status FROM runs WHERE tenant_id = :tenant_id AND run_id = :run_id")


async def find(connection: AsyncConnection, tenant_id: str, run_id: str) -> Run | None:
    """A run; None: there is none with this id in this tenant."""
    row = (await connection.execute(_of(tenant_id).where(runs.c.run_id == run_id))).one_or_none()
    return None if row is None else run_from_row(row)


async def get(connection: AsyncConnection, tenant_id: str, run_id: str) -> Run:
    """A run that is known to exist."""
    return run_from_row((await connection.execute(_of(tenant_id).where(runs.c.run_id == run_id))).one())


async def status_of(connection: AsyncConnection, tenant_id: str, run_id: str) -> RunStatus | None:
    """A run's status, by the cheapest query there is."""
    status = await connection.scalar(_STATUS, {"tenant_id": tenant_id, "run_id": run_id})
    return None if status is None else RunStatus(status)


async def page(
    connection: AsyncConnection, tenant_id: str, *, after: str | None, limit: int, status: RunStatus | None
) -> list[Run]:
    """A page of runs, newest first, from the one after `after` on."""
    query = _of(tenant_id).order_by(runs.c.run_id.desc()).limit(limit)
    if after is not None:
        query = query.where(runs.c.run_id < after)
    if status is not None:
        query = query.where(runs.c.status == status)
    return [run_from_row(row) for row in await connection.execute(query)]


def _of(tenant_id: str) -> Select[Any]:
    return select(runs).where(runs.c.tenant_id == tenant_id)


def run_from_row(row: Any) -> Run:
    """A row of `runs` as a record."""
    return Run(
        run_id=row.run_id,
        tenant_id=row.tenant_id,
        conversation_id=row.conversation_id,
        message_id=row.message_id,
        agent=row.agent,
        agent_version=row.agent_version,
        position=row.position,
        status=RunStatus(row.status),
        degraded=row.degraded,
        error=row.error,
        requested_by=row.requested_by,
        created_at=row.created_at,
        completed_at=row.completed_at,
    )
