"""Kill switches: who is stopped, and which runs that leaves to be stopped.

A switch is a row. Whatever begins something reads it in the transaction in which it begins: the acceptance of a
message, a model call, the dispatch of a tool. So nothing begins once the row is committed, whether or not Temporal
answers.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.switches import EVERYBODY, Scope, Switch
from holdfast.store import tenants
from holdfast.store.tables.runs import OPEN_STATES

_THROW = text("""
INSERT INTO switches (tenant_id, agent, reason, thrown_by) VALUES (:tenant_id, :agent, :reason, :person)
ON CONFLICT (tenant_id, agent) DO UPDATE SET reason = excluded.reason, thrown_by = excluded.thrown_by
RETURNING tenant_id, agent, reason, thrown_by, thrown_at
""")

_LIFT = text("""
DELETE FROM switches WHERE tenant_id = :tenant_id AND agent = :agent
RETURNING tenant_id, agent, reason, thrown_by, thrown_at
""")

_STANDING = text("""
SELECT tenant_id, agent, reason, thrown_by, thrown_at FROM switches
WHERE tenant_id IN (:tenant_id, :everybody) AND agent IN ('', :agent) ORDER BY tenant_id, agent LIMIT 1
""")

_THROWN = text("""
SELECT tenant_id, agent, reason, thrown_by, thrown_at FROM switches
WHERE tenant_id IN (:tenant_id, :everybody) ORDER BY tenant_id, agent
""")

_HOLDS_BACK = text("""
SELECT r.cancelled_by IS NOT NULL OR EXISTS (
  SELECT FROM switches s WHERE s.tenant_id IN (r.tenant_id, :everybody) AND s.agent IN ('', r.agent)
) FROM runs r WHERE r.tenant_id = :tenant_id AND r.run_id = :run_id
""")

_STOPPED_TENANTS = text("SELECT DISTINCT tenant_id FROM switches")

_LEFT_TO_STOP = text(f"""
SELECT DISTINCT ON (r.run_id) r.run_id, r.cancelled_by IS NOT NULL AS is_overdue,
       s.tenant_id, s.agent, s.reason, s.thrown_by, s.thrown_at
FROM runs r JOIN switches s ON s.tenant_id IN (r.tenant_id, :everybody) AND s.agent IN ('', r.agent)
WHERE r.tenant_id = :tenant_id AND r.status IN {OPEN_STATES}
  AND (r.cancelled_by IS NULL OR s.thrown_at < clock_timestamp() - CAST(:patience AS interval))
ORDER BY r.run_id, s.tenant_id, s.agent LIMIT :limit
""")


@dataclass(frozen=True)
class LeftToStop:
    """An open run that a switch covers. `is_overdue`: it was asked to end, and has had its time."""

    run_id: str
    switch: Switch
    is_overdue: bool


async def throw(connection: AsyncConnection, scope: Scope, reason: str, person: str) -> Switch:
    """Throw a switch; thrown before, it has a new reason, and stands since when it did."""
    values = {"tenant_id": scope.tenant_id, "agent": scope.agent, "reason": reason, "person": person}
    return _switch((await connection.execute(_THROW, values)).one())


async def lift(connection: AsyncConnection, scope: Scope) -> Switch | None:
    """Lift a switch; answers with it as it was. None: it was not thrown."""
    values = {"tenant_id": scope.tenant_id, "agent": scope.agent}
    row = (await connection.execute(_LIFT, values)).one_or_none()
    return None if row is None else _switch(row)


async def standing(connection: AsyncConnection, tenant_id: str, agent: str = "") -> Switch | None:
    """The switch that stops an agent, or the whole tenant; the widest, if there are several."""
    values = {"tenant_id": tenant_id, "everybody": EVERYBODY, "agent": agent}
    row = (await connection.execute(_STANDING, values)).one_or_none()
    return None if row is None else _switch(row)


async def thrown(connection: AsyncConnection, tenant_id: str) -> list[Switch]:
    """Every switch that stops something of a tenant."""
    rows = await connection.execute(_THROWN, {"tenant_id": tenant_id, "everybody": EVERYBODY})
    return [_switch(row) for row in rows]


async def holds_back(connection: AsyncConnection, tenant_id: str, run_id: str) -> bool:
    """Whether a run that exists may begin nothing any more: a switch covers it, or somebody has cancelled it."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "everybody": EVERYBODY}
    return bool(await connection.scalar(_HOLDS_BACK, values))


async def stopped_tenants(connection: AsyncConnection) -> list[str]:
    """The tenants of which a switch may stop something. Needs `Database.relay`."""
    found = list(await connection.scalars(_STOPPED_TENANTS))
    return await tenants.all_names(connection) if EVERYBODY in found else found


async def left_to_stop(
    connection: AsyncConnection, tenant_id: str, patience: timedelta, limit: int
) -> list[LeftToStop]:
    """Open runs of a tenant that a switch covers: those that nobody has asked to end, and, later, those that have not.

    Args:
        patience: how long runs have to end by themselves, once a switch is thrown.
    """
    values = {"tenant_id": tenant_id, "everybody": EVERYBODY, "patience": patience, "limit": limit}
    rows = await connection.execute(_LEFT_TO_STOP, values)
    return [LeftToStop(row.run_id, _switch(row), row.is_overdue) for row in rows]


def _switch(row: Row[tuple[object, ...]]) -> Switch:
    return Switch(Scope(row.tenant_id, row.agent), row.reason, row.thrown_by, row.thrown_at)
