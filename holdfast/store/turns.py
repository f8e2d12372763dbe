"""The turn: one run at a time has a conversation, in order of arrival.

Whoever asks for the turn locks the conversation's row first: of two runs asking at once, one waits for the other.
A run gets the turn when nobody has it and no earlier run of the conversation is open. `workflows/message.py` wakes the
next run when one ends; that is a hint. The rule above decides.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.events import Event, MessageReset, RunCancelled, RunCompleted, RunFailed, RunMerged, RunStarted
from holdfast.domain.ids import workflow_id
from holdfast.domain.runs import OPEN, RunStatus
from holdfast.store import audit, changes, event_log
from holdfast.store.changes import LOG, STATUS, Change
from holdfast.store.tables.runs import OPEN_STATES

# The lock comes first, in a statement of its own: what the statement that locks reads of rows that it does not lock
# is as it was before it waited. Locked in the order of the clauses: the conversation, then the run.
_LOCK = text("""
SELECT c.turn_run_id, c.conversation_id, r.position, r.status, r.agent, r.agent_version, r.cancelled_by,
       r.stream_step, r.stream_attempt, r.stream_is_open
FROM runs r JOIN conversations c ON c.tenant_id = r.tenant_id AND c.conversation_id = r.conversation_id
WHERE r.tenant_id = :tenant_id AND r.run_id = :run_id FOR UPDATE OF c FOR NO KEY UPDATE OF r
""")

_EARLIER = text(f"""
SELECT EXISTS (
  SELECT FROM runs WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND position < :position
    AND status IN {OPEN_STATES}
)
""")

# With the turn, the outbox hears that the workflow has started.
_TAKE = text(f"""
WITH turn AS (
  UPDATE conversations SET turn_run_id = :run_id WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id
), heard AS (
  DELETE FROM outbox WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind = 'start'
), begun AS (
  UPDATE runs SET status = 'running', last_seq = last_seq + 1
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND status = 'queued' RETURNING run_id, last_seq
), {event_log.logged("begun")}
SELECT run_id FROM begun
""")

# The messages that wait, up to the first that does not want to join or is meant for another agent, join the run that
# has the turn, unless that is to be stopped; whoever waits for them is woken, and their workflows are told that they
# have nothing left to do.
_MERGE = text(f"""
WITH turn AS (
  SELECT conversation_id FROM conversations
  WHERE tenant_id = :tenant_id AND turn_run_id = :run_id
), waiting AS (
  SELECT r.run_id, r.position, r.on_busy = 'steer' AND r.agent = this.agent AS joins
  FROM runs r JOIN turn USING (conversation_id)
  JOIN runs this ON this.tenant_id = r.tenant_id AND this.run_id = :run_id AND this.cancelled_by IS NULL
  WHERE r.tenant_id = :tenant_id AND r.status = 'queued' AND r.cancelled_by IS NULL
), merged AS (
  UPDATE runs SET status = 'merged', merged_into = :run_id, merged_at_step = :step, completed_at = clock_timestamp(),
                  last_seq = last_seq + 1
  WHERE tenant_id = :tenant_id AND status = 'queued' AND run_id IN (
    SELECT run_id FROM waiting
    WHERE position < coalesce((SELECT min(position) FROM waiting WHERE NOT joins), 2147483647)
  )
  RETURNING run_id, conversation_id, agent, message_id, last_seq
), told AS (
  INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, due_at)
  SELECT :tenant_id, 'freed', concat_ws(':', :tenant_id, agent, message_id), run_id, clock_timestamp() FROM merged
), logged AS (
  INSERT INTO events (tenant_id, run_id, seq, type, data)
  SELECT :tenant_id, run_id, last_seq, '{RunMerged.TYPE}', json_build_object(
    'run_id', run_id, 'conversation_id', conversation_id, 'message_id', message_id, 'merged_into', CAST(:run_id AS text)
  ) FROM merged
)
SELECT run_id FROM merged
""")

# Of a conversation, before a message is accepted into it: whoever else accepts or takes the turn waits meanwhile.
_LOOK = text("""
SELECT turn_run_id FROM conversations
WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id FOR UPDATE
""")

_IS_BUSY = text(f"""
SELECT EXISTS (
  SELECT FROM runs WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id
    AND status IN {OPEN_STATES}
)
""")

# What a model call without an end had reserved is free again. Answers with the run that is next.
_END = text(f"""
WITH ended AS (
  UPDATE runs SET status = :status, degraded = :degraded, error = :error, completed_at = clock_timestamp(),
                  last_seq = last_seq + cardinality(CAST(:types AS text[])), stream_is_open = false
  WHERE tenant_id = :tenant_id AND run_id = :run_id AND status IN {OPEN_STATES}
  RETURNING run_id, last_seq
), {event_log.logged("ended")}, freed AS (
  UPDATE conversations SET turn_run_id = NULL
  WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND turn_run_id = :run_id
), heard AS (
  DELETE FROM outbox WHERE tenant_id = :tenant_id AND run_id = :run_id AND kind <> 'deliver'
), released AS (
  DELETE FROM reservations WHERE tenant_id = :tenant_id AND run_id IN (SELECT run_id FROM ended)
), following AS (
  SELECT agent, message_id FROM runs
  WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND status = 'queued' AND run_id <> :run_id
  ORDER BY position LIMIT 1
)
SELECT EXISTS (SELECT FROM ended) AS has_ended,
       (SELECT agent FROM following) AS agent, (SELECT message_id FROM following) AS message_id
""")

_OPEN_BEFORE = text(f"""
SELECT earlier.run_id, earlier.agent, earlier.message_id FROM runs earlier
JOIN runs this ON this.tenant_id = earlier.tenant_id AND this.conversation_id = earlier.conversation_id
  AND earlier.position < this.position
WHERE this.tenant_id = :tenant_id AND this.run_id = :run_id
  AND earlier.status IN {OPEN_STATES}
  AND NOT EXISTS (
    SELECT FROM outbox o WHERE o.tenant_id = earlier.tenant_id AND o.run_id = earlier.run_id AND o.kind = 'start'
  )
ORDER BY earlier.position
""")


@dataclass(frozen=True)
class TurnTaken:
    """The turn, and what the run that has it was accepted with.

    `has_ended`: the run is over, and needs no turn. `is_cancelled`: it is to end before it begins.
    """

    agent: str
    agent_version: int
    has_ended: bool = False
    is_cancelled: bool = False


@dataclass(frozen=True)
class Conversation:
    """A conversation that is locked. `turn_run_id`: the run that has the turn; `is_busy`: that, or one that waits."""

    conversation_id: str
    turn_run_id: str | None
    is_busy: bool


@dataclass(frozen=True)
class OpenRun:
    """A run that stands in the way, and the workflow that should be moving it."""

    run_id: str
    workflow_id: str


@dataclass(frozen=True)
class Ended:
    """How a run ends. `degraded`: with an apology instead of an answer."""

    status: RunStatus
    degraded: bool
    error: str | None


async def take(connection: AsyncConnection, tenant_id: str, run_id: str) -> TurnTaken | None:
    """Take the conversation's turn for a run; None: it is not its turn yet. Taken again, it stays taken."""
    of_run = {"tenant_id": tenant_id, "run_id": run_id}
    row = (await connection.execute(_LOCK, of_run)).one()
    taken = TurnTaken(
        row.agent, row.agent_version, has_ended=row.status not in OPEN, is_cancelled=row.cancelled_by is not None
    )
    if row.turn_run_id == run_id or taken.has_ended or taken.is_cancelled:
        return taken
    conversation = {**of_run, "conversation_id": row.conversation_id}
    if row.turn_run_id is not None:
        return None
    # The first run of a conversation has nobody before it, which most runs are.
    if row.position > 1 and await connection.scalar(_EARLIER, {**conversation, "position": row.position}):
        return None
    started = await connection.scalar(_TAKE, {**conversation, **event_log.parameters([RunStarted()])})
    event_log.grown(connection, started)
    return taken


async def look(connection: AsyncConnection, tenant_id: str, conversation_id: str) -> Conversation | None:
    """Lock a conversation until the transaction ends, and say who has its turn; None: there is no such one."""
    values = {"tenant_id": tenant_id, "conversation_id": conversation_id}
    row = (await connection.execute(_LOOK, values)).one_or_none()
    if row is None:
        return None
    is_busy = row.turn_run_id is not None or bool(await connection.scalar(_IS_BUSY, values))
    return Conversation(conversation_id, row.turn_run_id, is_busy)


async def lock(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """Lock a run's conversation, then the run, before anything else of theirs: nobody is to wait in a circle."""
    await connection.execute(_LOCK, {"tenant_id": tenant_id, "run_id": run_id})


async def merge(connection: AsyncConnection, tenant_id: str, run_id: str, step: int) -> None:
    """Have the messages that want to steer the run which has the turn join it, from its model call `step` on."""
    of_run = {"tenant_id": tenant_id, "run_id": run_id}
    await connection.execute(_LOCK, of_run)
    merged = (await connection.scalars(_MERGE, {**of_run, "step": step})).all()
    if merged:
        for one in merged:
            _has_ended(connection, one)
        entries = [audit.Entry(kind="run", outcome=RunStatus.MERGED, run_id=one) for one in merged]
        await audit.append(connection, tenant_id, *entries)


async def end(
    connection: AsyncConnection, tenant_id: str, run_id: str, ended: Ended, *events: Event, reply_id: str | None = None
) -> str | None:
    """End a run, on record and in its log, and free the turn, if it has it.

    Answers with the workflow of the run that is next, if one waits.

    Args:
        connection: the transaction.
        tenant_id: whose run.
        run_id: the run.
        ended: how it ended.
        events: what its log tells before its end.
        reply_id: the message that it is answered with.
    """
    of_run = {"tenant_id": tenant_id, "run_id": run_id}
    row = (await connection.execute(_LOCK, of_run)).one()
    cut_off = [MessageReset(row.stream_step, row.stream_attempt)] if row.stream_is_open else []
    told = event_log.parameters([*cut_off, *events, _last_event(ended, reply_id)])
    values = {**vars(ended), **told, "conversation_id": row.conversation_id}
    following = (await connection.execute(_END, {**of_run, **values})).one()
    if following.has_ended:
        _has_ended(connection, run_id)
        entry = audit.Entry(kind="run", outcome=ended.status, run_id=run_id, detail=ended.error)
        await audit.append(connection, tenant_id, entry)
    return None if following.agent is None else workflow_id(tenant_id, following.agent, following.message_id)


def _has_ended(connection: AsyncConnection, run_id: str) -> None:
    """Have those who wait for the run look, and those who read its log."""
    changes.note(connection, Change(STATUS, run_id), Change(LOG, run_id))


def _last_event(ended: Ended, reply_id: str | None) -> Event:
    if ended.status is RunStatus.COMPLETED:
        return RunCompleted(reply_id, degraded=ended.degraded, error=ended.error)
    kind = RunCancelled if ended.status is RunStatus.CANCELLED else RunFailed
    return kind(reply_id, ended.error)


async def open_before(connection: AsyncConnection, tenant_id: str, run_id: str) -> list[OpenRun]:
    """The open runs before this one whose workflow was started, so that a missing workflow means it was terminated."""
    rows = await connection.execute(_OPEN_BEFORE, {"tenant_id": tenant_id, "run_id": run_id})
    return [OpenRun(row.run_id, workflow_id(tenant_id, row.agent, row.message_id)) for row in rows]
