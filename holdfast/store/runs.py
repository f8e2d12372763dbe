"""Runs: reading them, one or a page."""

from typing import Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.runs import Run, RunStatus, Usage
from holdfast.store.tables import runs, steps

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


async def usage_of(connection: AsyncConnection, tenant_id: str, run_id: str) -> Usage:
    """Tokens and cost of a run's model calls. One call without a price makes the whole run unpriced."""
    query = select(
        func.coalesce(func.sum(steps.c.prompt_tokens), 0).label("prompt_tokens"),
        func.coalesce(func.sum(steps.c.completion_tokens), 0).label("completion_tokens"),
        func.coalesce(func.sum(steps.c.cost_usd), 0).label("cost_usd"),
        func.count().filter(steps.c.cost_usd.is_(None)).label("unpriced"),
    ).where(steps.c.tenant_id == tenant_id, steps.c.run_id == run_id)
    row = (await connection.execute(query)).one()
    return Usage(row.prompt_tokens, row.completion_tokens, None if row.unpriced else row.cost_usd)


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
