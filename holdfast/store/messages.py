"""Accepting messages, and reading the transcript."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.client_tools import WENT_ON
from holdfast.domain.events import Event
from holdfast.domain.messages import (
    OUTCOME_UNKNOWN,
    JoinedMessage,
    Message,
    PastRun,
    PastStep,
    RequestedToolCall,
    Role,
    ToolExchange,
)
from holdfast.domain.permissions import View
from holdfast.domain.tools import ToolCallStatus
from holdfast.store import event_log
from holdfast.store.tables.runs import conversations, messages
from holdfast.store.views import of_conversations_in

# One statement, so that acceptance costs one round trip: the conversation, the run, the message and the word to
# Temporal are committed together or not at all. A conversation's row is locked by its UPDATE, so positions follow the
# order of arrival. A client's own calls that wait for an output are closed: the conversation goes on without.
_NEW_CONVERSATION = """
conversation AS (
  INSERT INTO conversations (tenant_id, conversation_id, last_position)
  VALUES (:tenant_id, :conversation_id, 1) RETURNING last_position
)"""
_KNOWN_CONVERSATION = """
conversation AS (
  UPDATE conversations SET last_position = last_position + 1
  WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id RETURNING last_position
), closed AS (
  UPDATE tool_calls SET status = 'withdrawn', error = :went_on
  WHERE tenant_id = :tenant_id AND by_client AND status = 'approved' AND :status = 'queued'
    AND run_id IN (SELECT run_id FROM runs WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id)
)"""
_ACCEPT = """
WITH {conversation},
run AS (
  INSERT INTO runs (tenant_id, run_id, conversation_id, message_id, agent, agent_version, position, requested_by,
                    sent_by, on_busy, status, merged_into, client_tools, last_seq, completed_at)
  SELECT :tenant_id, :run_id, :conversation_id, :message_id, :agent, CAST(:agent_version AS int), last_position,
         :requested_by, :sent_by, :on_busy, :status, :merged_into, CAST(:client_tools AS json), 1,
         CASE WHEN :status = 'merged' THEN clock_timestamp() END
  FROM conversation RETURNING run_id, last_seq
), {logged},
message AS (
  INSERT INTO messages
    (tenant_id, message_id, conversation_id, run_id, role, text, idempotency_key, fingerprint, sender, metadata,
     history)
  SELECT :tenant_id, :message_id, :conversation_id, run_id, 'user', :text, :idempotency_key, :fingerprint, :sender,
         :metadata, :history
  FROM run
), told AS (
  INSERT INTO outbox (tenant_id, kind, workflow_id, run_id)
  SELECT :tenant_id, 'start', :workflow_id, run_id FROM run WHERE :status = 'queued'
)
SELECT run_id FROM run
"""
_LOGGED = event_log.logged("run")
_ACCEPT_INTO_NEW = text(_ACCEPT.format(conversation=_NEW_CONVERSATION, logged=_LOGGED)).bindparams(
    bindparam("metadata", type_=JSONB)
)
_ACCEPT_INTO_KNOWN = text(_ACCEPT.format(conversation=_KNOWN_CONVERSATION, logged=_LOGGED)).bindparams(
    bindparam("metadata", type_=JSONB)
)

_ACCEPTED_UNDER_KEY = text("""
SELECT m.message_id, m.conversation_id, m.run_id, m.fingerprint, r.sent_by
FROM messages m JOIN runs r ON r.tenant_id = m.tenant_id AND r.run_id = m.run_id
WHERE m.tenant_id = :tenant_id AND m.idempotency_key = ANY(:keys)
ORDER BY m.created_at LIMIT 1
""")

_LATELY_ACCEPTED = text("""
SELECT m.message_id, m.conversation_id, m.run_id, m.fingerprint, r.sent_by
FROM runs r JOIN messages m ON m.tenant_id = r.tenant_id AND m.run_id = r.run_id AND m.role = 'user'
WHERE r.tenant_id = :tenant_id AND r.sent_by = ANY(:names) AND r.run_id > :since
  AND m.fingerprint = :fingerprint AND m.idempotency_key IS NULL
  AND NOT EXISTS (SELECT FROM runs later WHERE later.tenant_id = r.tenant_id
    AND later.conversation_id = r.conversation_id AND later.position > r.position)
ORDER BY r.run_id DESC LIMIT 1
""")

_NEWEST_ANSWERING = text("""
SELECT coalesce(merged_into, run_id) FROM runs WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id
ORDER BY position DESC LIMIT 1
""")

_ANSWERING = text("SELECT coalesce(merged_into, run_id) FROM runs WHERE tenant_id = :tenant_id AND run_id = :run_id")

_STORE_REPLY = text("""
INSERT INTO messages (tenant_id, message_id, conversation_id, run_id, role, text)
SELECT tenant_id, :message_id, conversation_id, run_id, 'assistant', :text FROM runs
WHERE tenant_id = :tenant_id AND run_id = :run_id
ON CONFLICT (tenant_id, run_id, role) DO NOTHING
""")

_REPLIES = text("""
SELECT run_id, text FROM messages WHERE tenant_id = :tenant_id AND run_id = ANY(:run_ids) AND role = 'assistant'
""")

# The transcript up to and with a run: the newest `runs` runs, each with its texts and its tool-calling steps.
# OFFSET 0: without it PostgreSQL, as long as it has no statistics, may read all calls of the tenant to find a run's.
_TRANSCRIPT = text("""
SELECT r.run_id,
       (SELECT text FROM messages m WHERE m.tenant_id = r.tenant_id AND m.run_id = r.run_id AND m.role = 'user')
         AS user_text,
       (SELECT text FROM messages m WHERE m.tenant_id = r.tenant_id AND m.run_id = r.run_id AND m.role = 'assistant')
         AS reply,
       (SELECT json_agg(json_build_array(other.merged_at_step, m.text) ORDER BY other.position)
        FROM runs other
        JOIN messages m ON m.tenant_id = other.tenant_id AND m.run_id = other.run_id AND m.role = 'user'
        WHERE other.tenant_id = r.tenant_id AND other.conversation_id = r.conversation_id
          AND other.merged_into = r.run_id AND other.merged_at_step IS NOT NULL) AS joined,
       t.step, t.step_text, t.tool_call_id, t.tool, t.arguments_raw, left(t.result, :characters) AS result,
       length(t.result) AS result_length, t.error, t.status, t.edited, t.arguments
FROM runs this
CROSS JOIN LATERAL (
  SELECT * FROM runs own
  WHERE own.tenant_id = this.tenant_id AND own.conversation_id = this.conversation_id AND own.position <= this.position
    AND own.status <> 'merged'
  ORDER BY own.position DESC LIMIT :runs
) r
LEFT JOIN LATERAL (
  SELECT call.*, step.text AS step_text FROM tool_calls call
  JOIN steps step ON step.tenant_id = call.tenant_id AND step.run_id = r.run_id AND step.step = call.step
  WHERE call.tenant_id = r.tenant_id AND call.run_id = r.run_id
  OFFSET 0
) t ON true
WHERE this.tenant_id = :tenant_id AND this.run_id = :run_id
ORDER BY r.position, t.step, t.position
""")


async def accept(connection: AsyncConnection, row: dict[str, Any], event: Event, *, new_conversation: bool) -> bool:
    """Store an accepted message with its run, whose log it begins. False: there is no such conversation.

    Nobody is told of the log: nobody has read in it yet.
    """
    values = {**row, **event_log.parameters([event])}
    if new_conversation:
        return (await connection.execute(_ACCEPT_INTO_NEW, values)).one_or_none() is not None
    return (await connection.execute(_ACCEPT_INTO_KNOWN, {**values, "went_on": WENT_ON})).one_or_none() is not None


async def accepted_under_key(connection: AsyncConnection, tenant_id: str, keys: Sequence[str]) -> Any | None:
    """The message accepted under an idempotency key: message_id, conversation_id, run_id, fingerprint, sent_by.

    `keys`: the key, and what may be left of it where the message was erased, which has no fingerprint any more.
    """
    return (await connection.execute(_ACCEPTED_UNDER_KEY, {"tenant_id": tenant_id, "keys": list(keys)})).one_or_none()


async def lately_accepted(
    connection: AsyncConnection, tenant_id: str, names: Collection[str], fingerprint: str, since: str
) -> Any | None:
    """The newest message without a key, as in `accepted_under_key`, that one of these people sent, in a run that comes
    after `since` and is the newest of its conversation."""
    values = {"tenant_id": tenant_id, "names": sorted(names), "fingerprint": fingerprint, "since": since}
    return (await connection.execute(_LATELY_ACCEPTED, values)).one_or_none()


async def newest_answering(connection: AsyncConnection, tenant_id: str, conversation_id: str) -> str | None:
    """The run that answers the newest message of a conversation."""
    values = {"tenant_id": tenant_id, "conversation_id": conversation_id}
    newest: str | None = await connection.scalar(_NEWEST_ANSWERING, values)
    return newest


async def answering(connection: AsyncConnection, tenant_id: str, run_id: str) -> str:
    """The run that answers the message of a run that exists: itself, or the one that it was merged into."""
    return str(await connection.scalar(_ANSWERING, {"tenant_id": tenant_id, "run_id": run_id}))


async def store_reply(connection: AsyncConnection, tenant_id: str, run_id: str, message_id: str, reply: str) -> bool:
    """Store a run's reply, once. False: it has one, and a second changes nothing."""
    stored = await connection.execute(
        _STORE_REPLY, {"tenant_id": tenant_id, "run_id": run_id, "message_id": message_id, "text": reply}
    )
    return stored.rowcount == 1


async def replies_of(connection: AsyncConnection, tenant_id: str, run_ids: list[str]) -> dict[str, str]:
    """The replies of runs, by run; one that has none yet is left out."""
    rows = await connection.execute(_REPLIES, {"tenant_id": tenant_id, "run_ids": run_ids})
    return {row.run_id: row.text for row in rows}


async def in_conversation(
    connection: AsyncConnection, tenant_id: str, conversation_id: str, view: View, *, after: str | None, limit: int
) -> list[Message]:
    """A page of a conversation's messages, oldest first, from the one after `after` on; none, if it is not in view."""
    query = (
        select(messages)
        .where(messages.c.tenant_id == tenant_id, messages.c.conversation_id == conversation_id)
        .where(of_conversations_in(view, messages))
        .order_by(messages.c.message_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(messages.c.message_id > after)
    return [_message(row) for row in await connection.execute(query)]


async def is_conversation_in(connection: AsyncConnection, tenant_id: str, conversation_id: str, view: View) -> bool:
    """Whether a view shows a conversation; without a query, if it shows all of them."""
    if view.names is None:
        return True
    query = select(conversations.c.conversation_id).where(
        conversations.c.tenant_id == tenant_id,
        conversations.c.conversation_id == conversation_id,
        of_conversations_in(view, conversations),
    )
    return await connection.scalar(query) is not None


async def transcript(
    connection: AsyncConnection, tenant_id: str, run_id: str, *, runs: int, characters: int
) -> list[PastRun]:
    """What a model is given for a run: the newest `runs` runs of its conversation up to this one, oldest first.

    Of a tool's result the first `characters` are shown, with a note of what was cut.
    """
    values = {"tenant_id": tenant_id, "run_id": run_id, "runs": runs, "characters": characters}
    rows = (await connection.execute(_TRANSCRIPT, values)).all()
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.run_id, []).append(row)
    return [_past_run(of_run) for of_run in found.values()]


def _past_run(rows: list[Any]) -> PastRun:
    exchanges: dict[int, list[ToolExchange]] = {}
    texts: dict[int, str] = {}
    for row in rows:
        if row.step is not None:
            texts[row.step] = row.step_text
            exchanges.setdefault(row.step, []).append(_exchange(row))
    steps = tuple(PastStep(texts[step], tuple(calls), step) for step, calls in exchanges.items())
    joined = tuple(JoinedMessage(step, text) for step, text in rows[0].joined or ())
    return PastRun(user_text=rows[0].user_text, steps=steps, reply=rows[0].reply, joined=joined)


def _exchange(row: Any) -> ToolExchange:
    call = RequestedToolCall(row.tool, row.arguments_raw)
    return ToolExchange(row.tool_call_id, call, _shown(row))


def _shown(row: Any) -> str | None:
    if row.result is None:
        # Dispatched, in a run that has gone on without it: cancelled, or terminated from outside.
        error = OUTCOME_UNKNOWN if row.status == ToolCallStatus.DISPATCHED else row.error
        return None if error is None else json.dumps({"error": error})
    missing = row.result_length - len(row.result)
    shown = row.result if not missing else f"{row.result}\n[cut: {missing} of {row.result_length} characters left out]"
    if row.edited:
        return f"[A person changed the arguments before this ran, to {json.dumps(row.arguments)}]\n{shown}"
    return str(shown)


def _message(row: Any) -> Message:
    return Message(
        message_id=row.message_id,
        conversation_id=row.conversation_id,
        run_id=row.run_id,
        role=Role(row.role),
        text=row.text,
        created_at=row.created_at,
    )
