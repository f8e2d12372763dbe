"""Steps: what each model call of a run answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Numeric, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.events import Event
from holdfast.domain.model_calls import Attempt, Usage
from holdfast.store import event_log
from holdfast.store.event_log import Tail
from holdfast.store.tables.runs import steps

_NAMES = [column.name for column in steps.columns if column.name != "created_at"]

# Its text streams no more; that of the next step may. A text that was not streamed at all counts as a try of its own.
_TAIL = "CASE WHEN CAST(:tail AS text) = '' THEN 0 ELSE 1 END"
_SET = f""",
      stream_step = CAST(:step AS int) + 1, stream_began = NULL, stream_is_open = false,
      stream_attempt = r.stream_attempt + CASE WHEN CAST(:tail_of AS int) IS NULL THEN {_TAIL} ELSE 0 END"""

# With the step, its events; and before them the rest of its text, if that was streamed.
_STORE = text(f"""
WITH step AS (
  INSERT INTO steps ({", ".join(_NAMES)}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
  ON CONFLICT DO NOTHING RETURNING run_id
), {event_log.counted("step", _SET, _TAIL)}, {event_log.logged()}, tail AS (
  INSERT INTO deltas (tenant_id, run_id, seq, step, attempt, text)
  SELECT :tenant_id, run_id, last_seq - cardinality(CAST(:types AS text[])), CAST(:step AS int),
         coalesce(CAST(:tail_of AS int), stream_attempt), CAST(:tail AS text)
  FROM counted WHERE CAST(:tail AS text) <> ''
)
SELECT run_id FROM step
""").bindparams(bindparam("attempts", type_=JSONB), bindparam("cost_usd", type_=Numeric(18, 9)))

_FAILING_FOR = text("""
SELECT clock_timestamp() - min(created_at) FROM audit
WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'model_call' AND step = :step AND outcome = 'failed'
""")


@dataclass(frozen=True)
class Step:
    """One answered model call. `latency_ms` covers every attempt; `text` is what is kept of the answer's."""

    run_id: str
    step: int
    text: str
    alias: str
    model: str
    deployment: str
    usage: Usage
    attempts: tuple[Attempt, ...]
    latency_ms: int
    first_token_ms: int | None


async def store(connection: AsyncConnection, tenant_id: str, step: Step, events: Sequence[Event], tail: Tail) -> bool:
    """Store a step, once, and log its events and the tail of its text. False: it was stored before, and stays."""
    told = {**event_log.parameters(events), "tail": tail.text, "tail_of": tail.attempt}
    stored = await connection.scalar(_STORE, {"tenant_id": tenant_id, **_as_row(step), **told})
    return event_log.grown(connection, stored)


async def find(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> Step | None:
    """A step; None: that model call has not been answered yet."""
    row = (
        await connection.execute(
            select(steps).where(steps.c.tenant_id == tenant_id, steps.c.run_id == run_id, steps.c.step == step)
        )
    ).one_or_none()
    return None if row is None else _from_row(row)


async def of_runs(connection: AsyncConnection, tenant_id: str, run_ids: list[str]) -> list[Step]:
    """Every step of some runs, in order."""
    query = select(steps).where(steps.c.tenant_id == tenant_id, steps.c.run_id.in_(run_ids)).order_by(steps.c.step)
    return [_from_row(row) for row in await connection.execute(query)]


async def failing_for(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> timedelta:
    """How long ago an attempt at this model call first failed; zero if none has."""
    found: timedelta | None = await connection.scalar(
        _FAILING_FOR, {"tenant_id": tenant_id, "run_id": run_id, "step": step}
    )
    return found or timedelta(0)


def _as_row(step: Step) -> dict[str, Any]:
    row = dict(vars(step))
    usage: Usage = row.pop("usage")
    row["usage_estimated"] = usage.is_estimated
    row["attempts"] = [vars(attempt) for attempt in step.attempts]
    return {**row, **{name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "cost_usd")}}


def _from_row(row: Any) -> Step:
    return Step(
        run_id=row.run_id,
        step=row.step,
        text=row.text,
        alias=row.alias,
        model=row.model,
        deployment=row.deployment,
        usage=Usage(row.prompt_tokens, row.completion_tokens, row.cost_usd, row.usage_estimated),
        attempts=tuple(Attempt(**attempt) for attempt in row.attempts),
        latency_ms=row.latency_ms,
        first_token_ms=row.first_token_ms,
    )
