"""Runs: reading them, one or a page."""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.permissions import View
from holdfast.domain.runs import Run, RunStatus
from holdfast.store.tables.runs import OPEN_STATES, messages, runs
from holdfast.store.views import runs_in

_BEFORE_STEP = text("""
SELECT this.agent, this.agent_version, this.stream_is_open, this.client_tools,
       EXISTS (SELECT FROM steps s WHERE s.tenant_id = this.tenant_id AND s.run_id = this.run_id AND s.step = :step)
         AS is_answered,
       coalesce((SELECT sum(s.cost_usd) FROM steps s WHERE s.tenant_id = this.tenant_id AND s.run_id = this.run_id), 0)
         AS cost_usd,
       EXISTS (SELECT FROM runs later WHERE later.tenant_id = this.tenant_id
         AND later.conversation_id = this.conversation_id AND later.position > this.position
         AND later.status = 'queued' AND later.on_busy = 'steer') AS is_steered,
       EXISTS (SELECT FROM budgets b WHERE b.tenant_id = this.tenant_id) AS has_budget,
       this.cancelled_by IS NOT NULL OR EXISTS (SELECT FROM switches w
         WHERE w.tenant_id IN (this.tenant_id, '*') AND w.agent IN ('', this.agent)) AS is_held_back
FROM runs this WHERE this.tenant_id = :tenant_id AND this.run_id = :run_id
""")

_HEADS = text("""
SELECT run_id, status, last_seq FROM runs WHERE tenant_id = :tenant_id AND run_id = ANY(:run_ids)
""")

_LOCK = text("""
SELECT FROM runs WHERE tenant_id = :tenant_id AND run_id = ANY(:run_ids) ORDER BY run_id FOR NO KEY UPDATE
""")

_LOCK_ONE = text("SELECT status FROM runs WHERE tenant_id = :tenant_id AND run_id = :run_id FOR NO KEY UPDATE")

_ASK_TO_CANCEL = text(f"""
UPDATE runs SET cancelled_by = :person
WHERE tenant_id = :tenant_id AND run_id = :run_id AND cancelled_by IS NULL
  AND status IN {OPEN_STATES}
RETURNING run_id
""")


async def find(connection: AsyncConnection, tenant_id: str, run_id: str, view: View) -> Run | None:
    """A run; None: there is none with this id in this view of the tenant."""
    query = _of(tenant_id).where(runs.c.run_id == run_id, runs_in(view))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else run_from_row(row)


async def get(connection: AsyncConnection, tenant_id: str, run_id: str) -> Run:
    """A run that is known to exist."""
    return run_from_row((await connection.execute(_of(tenant_id).where(runs.c.run_id == run_id))).one())


async def status_of(connection: AsyncConnection, tenant_id: str, run_id: str, view: View) -> RunStatus | None:
    """A run's status; None: as `find`."""
    query = select(runs.c.status).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id, runs_in(view))
    status = await connection.scalar(query)
    return None if status is None else RunStatus(status)


@dataclass(frozen=True)
class Head:
    """How far a run has come: its status, and the number of the newest event of its log."""

    run_id: str
    status: RunStatus
    last_seq: int


async def heads(connection: AsyncConnection, tenant_id: str, run_ids: Collection[str]) -> list[Head]:
    """How far some runs have come."""
    rows = await connection.execute(_HEADS, {"tenant_id": tenant_id, "run_ids": list(run_ids)})
    return [Head(row.run_id, RunStatus(row.status), row.last_seq) for row in rows]


@dataclass(frozen=True)
class BeforeStep:
    """What is to be known of a run before one of its model calls.

    `cost_usd` sums up what its steps cost so far, as far as a price is known. `is_steered`: messages wait to join it.
    `has_budget`: its tenant has one. `is_held_back`: it may begin nothing any more, as in `switches.holds_back`.
    `stream_is_open`: text of a try before stands in its log, and is not completed. `client_tools`: see `from_stored` in
    `holdfast.domain.client_tools`.
    """

    agent: str
    agent_version: int
    is_answered: bool
    cost_usd: Decimal
    is_steered: bool
    has_budget: bool
    stream_is_open: bool
    is_held_back: bool
    client_tools: Any


async def before_step(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> BeforeStep:
    """What is to be known of a run that exists, before its model call number `step`."""
    row = (await connection.execute(_BEFORE_STEP, {"tenant_id": tenant_id, "run_id": run_id, "step": step})).one()
    return BeforeStep(**row._mapping)


async def by_message(connection: AsyncConnection, tenant_id: str, message_id: str) -> Run | None:
    """The run of a message; None: the tenant has no such message."""
    of_message = select(messages.c.run_id).where(messages.c.tenant_id == tenant_id, messages.c.message_id == message_id)
    row = (await connection.execute(_of(tenant_id).where(runs.c.run_id == of_message.scalar_subquery()))).one_or_none()
    return None if row is None else run_from_row(row)


async def lock(connection: AsyncConnection, tenant_id: str, *run_ids: str) -> None:
    """Lock runs until the transaction ends; before anything of theirs is locked, so that nobody waits in a circle."""
    await connection.execute(_LOCK, {"tenant_id": tenant_id, "run_ids": list(run_ids)})


async def lock_one(connection: AsyncConnection, tenant_id: str, run_id: str) -> RunStatus:
    """Lock a run that exists; answers with its status, which stays until the transaction ends."""
    return RunStatus((await connection.execute(_LOCK_ONE, {"tenant_id": tenant_id, "run_id": run_id})).one().status)


async def ask_to_cancel(connection: AsyncConnection, tenant_id: str, run_id: str, person: str) -> bool:
    """Take note that a run is to be stopped. False: it has ended, or was to be stopped before."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "person": person}
    return (await connection.execute(_ASK_TO_CANCEL, values)).one_or_none() is not None


async def newest_in(connection: AsyncConnection, tenant_id: str, conversation_id: str, view: View) -> Run | None:
    """The newest run of a conversation that a view shows."""
    query = _of(tenant_id).where(runs.c.conversation_id == conversation_id, runs_in(view))
    row = (await connection.execute(query.order_by(runs.c.position.desc()).limit(1))).one_or_none()
    return None if row is None else run_from_row(row)


async def page(
    connection: AsyncConnection, tenant_id: str, view: View, *, after: str | None, limit: int, status: RunStatus | None
) -> list[Run]:
    """A page of runs, newest first, from the one after `after` on."""
    query = _of(tenant_id).where(runs_in(view)).order_by(runs.c.run_id.desc()).limit(limit)
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
        sent_by=row.sent_by,
        merged_into=row.merged_into,
        cancelled_by=row.cancelled_by,
        created_at=row.created_at,
        completed_at=row.completed_at,
    )
