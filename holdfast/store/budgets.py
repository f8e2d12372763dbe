"""Budgets: what a tenant's model calls may cost, never overshot by calls that run side by side.

Before a call, the most that it can cost is reserved; after it, what it did cost is settled. A reservation is made with
the budget's row locked, in a statement after the one that locks: of two calls that want the last of a budget, the
second sees the first's. Nothing else is locked after that row, so that nobody waits in a circle.

The budget keeps the sum of what was settled in its period; a reservation lasts only while its call does. That of a run
has the name of the run's step, so that a step which is tried again takes the place of what a dead worker left, and it
goes with the run. That of a call by itself, whose process died, counts no more after an hour.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.budgets import Budget, BudgetTerms, Period
from holdfast.domain.ids import new_reservation_id

# When the current period of a budget `b` began, and what was settled since.
_BEGAN = """
CASE b.period WHEN 'total' THEN CAST('-infinity' AS timestamptz)
  ELSE date_trunc(b.period, clock_timestamp(), 'UTC') END"""
_SPENT = f"CASE WHEN b.period_began = {_BEGAN} THEN b.spent_usd ELSE 0 END"

# The reservations `r` that count. A run's goes with the run, however long that takes.
_COUNTS = "(r.run_id IS NOT NULL OR r.created_at > clock_timestamp() - interval '1 hour')"

_LOCK = text("SELECT tenant_id FROM budgets WHERE tenant_id = :tenant_id FOR NO KEY UPDATE")

_FIND = text(f"""
SELECT b.period, b.limit_usd, b.raise_by_usd, b.approvers, {_SPENT} AS spent_usd,
       coalesce((SELECT sum(r.amount_usd) FROM reservations r WHERE r.tenant_id = b.tenant_id AND {_COUNTS}), 0)
         AS reserved_usd
FROM budgets b WHERE b.tenant_id = :tenant_id
""")

# The step's own reservation, which an earlier attempt left, is replaced. What no longer counts is cleared away. For
# what costs nothing there is always room, also in a budget whose limit was set below what is spent.
_RESERVE = text(f"""
WITH stale AS (
  DELETE FROM reservations r WHERE r.tenant_id = :tenant_id AND NOT {_COUNTS}
), others AS (
  SELECT coalesce(sum(r.amount_usd), 0) AS usd FROM reservations r
  WHERE r.tenant_id = :tenant_id AND r.reservation_id <> :reservation_id AND {_COUNTS}
)
INSERT INTO reservations (tenant_id, reservation_id, run_id, amount_usd)
SELECT b.tenant_id, :reservation_id, CAST(:run_id AS text), :amount_usd FROM budgets b CROSS JOIN others
WHERE b.tenant_id = :tenant_id AND (:amount_usd = 0.0 OR {_SPENT} + others.usd + :amount_usd <= b.limit_usd)
ON CONFLICT (tenant_id, reservation_id) DO UPDATE SET amount_usd = excluded.amount_usd
RETURNING reservation_id
""")

_SETTLE = text(f"""
UPDATE budgets b SET spent_usd = {_SPENT} + :cost_usd, period_began = {_BEGAN} WHERE b.tenant_id = :tenant_id
""")

_RELEASE = text("""
DELETE FROM reservations WHERE tenant_id = :tenant_id AND reservation_id = :reservation_id RETURNING amount_usd
""")

_ADD = text("""
INSERT INTO budgets (tenant_id, period, limit_usd, approvers) VALUES (:tenant_id, 'total', 0, '{}')
ON CONFLICT (tenant_id) DO NOTHING
""")

# What was spent is counted anew from the record: the period may be another one, or the budget new.
_SET = text(f"""
UPDATE budgets AS kept
SET period = b.period, limit_usd = :limit_usd, raise_by_usd = :raise_by_usd, approvers = :approvers,
    period_began = b.began, spent_usd = coalesce((
      SELECT sum(a.cost_usd) FROM audit a
      WHERE a.tenant_id = :tenant_id AND a.kind = 'model_call' AND a.created_at >= b.began
    ), 0)
FROM (SELECT b.period, {_BEGAN} AS began FROM (SELECT CAST(:period AS text) AS period) b) b
WHERE kept.tenant_id = :tenant_id
""").bindparams(bindparam("approvers", type_=ARRAY(Text)))

_RAISE = text("""
UPDATE budgets SET limit_usd = limit_usd + :raise_by_usd
WHERE tenant_id = :tenant_id AND limit_usd = :limit_usd
RETURNING limit_usd
""")

_IS_AS_ASKED = text(f"""
SELECT b.limit_usd = :limit_usd AND {_BEGAN} <= :asked_at FROM budgets b WHERE b.tenant_id = :tenant_id
""")


@dataclass(frozen=True)
class Reservation:
    """The most that a model call can cost. `run_id` None: of a call by itself."""

    reservation_id: str
    run_id: str | None
    amount_usd: Decimal

    @classmethod
    def of_step(cls, run_id: str, step: int, amount_usd: Decimal) -> "Reservation":
        """That of a run's step, by whichever attempt it is made."""
        return cls(f"{run_id}:{step}", run_id, amount_usd)

    @classmethod
    def by_itself(cls, amount_usd: Decimal) -> "Reservation":
        """That of a call which belongs to no run."""
        return cls(new_reservation_id(), None, amount_usd)


async def lock(connection: AsyncConnection, tenant_id: str) -> bool:
    """Lock the tenant's budget until the transaction ends. False: it has none."""
    return (await connection.execute(_LOCK, {"tenant_id": tenant_id})).one_or_none() is not None


async def find(connection: AsyncConnection, tenant_id: str) -> Budget | None:
    """The tenant's budget; None: it has none."""
    row = (await connection.execute(_FIND, {"tenant_id": tenant_id})).one_or_none()
    return None if row is None else _from_row(row)


async def reserve(connection: AsyncConnection, tenant_id: str, reservation: Reservation) -> bool:
    """Reserve, in a transaction that has locked the budget. False: there is no room for it."""
    found = await connection.execute(_RESERVE, {"tenant_id": tenant_id, **vars(reservation)})
    return found.one_or_none() is not None


async def settle(
    connection: AsyncConnection, tenant_id: str, reservation_id: str, cost_usd: Decimal | None
) -> Decimal | None:
    """Count what a call did cost, in place of what was reserved for it; answers with that, if anything was."""
    # The budget first: whoever reserves has locked it when they come to the reservation.
    await connection.execute(_SETTLE, {"tenant_id": tenant_id, "cost_usd": cost_usd or Decimal(0)})
    return await release(connection, tenant_id, reservation_id)


async def release(connection: AsyncConnection, tenant_id: str, reservation_id: str) -> Decimal | None:
    """Give back what was reserved for a call; answers with it, if anything was."""
    released: Decimal | None = await connection.scalar(
        _RELEASE, {"tenant_id": tenant_id, "reservation_id": reservation_id}
    )
    return released


async def put(connection: AsyncConnection, tenant_id: str, terms: BudgetTerms) -> None:
    """Set the tenant's budget, in a transaction that has locked it if there is one."""
    await connection.execute(_ADD, {"tenant_id": tenant_id})
    await connection.execute(_LOCK, {"tenant_id": tenant_id})
    await connection.execute(_SET, {"tenant_id": tenant_id, **vars(terms), "approvers": list(terms.approvers)})


async def raise_limit(
    connection: AsyncConnection, tenant_id: str, *, limit_usd: Decimal, raise_by_usd: Decimal
) -> Decimal | None:
    """Raise a limit that is still `limit_usd`; answers with the new one. None: it has been changed since."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "limit_usd": limit_usd, "raise_by_usd": raise_by_usd}
    raised: Decimal | None = await connection.scalar(_RAISE, values)
    return raised


async def is_as_asked(connection: AsyncConnection, tenant_id: str, *, limit_usd: Decimal, asked_at: datetime) -> bool:
    """Whether the limit, and the period, are still those of a question that was asked then."""
    values = {"tenant_id": tenant_id, "limit_usd": limit_usd, "asked_at": asked_at}
    return bool(await connection.scalar(_IS_AS_ASKED, values))


def _from_row(row: Any) -> Budget:
    return Budget(
        terms=BudgetTerms(row.limit_usd, Period(row.period), row.raise_by_usd, tuple(row.approvers)),
        spent_usd=row.spent_usd,
        reserved_usd=row.reserved_usd,
    )
