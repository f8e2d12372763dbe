"""Threads of Slack: which conversation each of them is."""

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.ids import new_conversation_id
from holdfast.domain.slack import SlackThread
from holdfast.store.tables.telling import slack_threads

# Of two first messages of one thread, the second waits here until the first is committed, and adds nothing.
_ADD = text("""
WITH thread AS (
  INSERT INTO slack_threads (tenant_id, team_id, channel_id, thread_ts, conversation_id)
  VALUES (:tenant_id, :team_id, :channel_id, :thread_ts, :conversation_id)
  ON CONFLICT (tenant_id, team_id, channel_id, thread_ts) DO NOTHING RETURNING conversation_id
), begun AS (
  INSERT INTO conversations (tenant_id, conversation_id, last_position)
  SELECT :tenant_id, conversation_id, 0 FROM thread
)
SELECT conversation_id FROM thread
""")


async def find(connection: AsyncConnection, tenant_id: str, thread: SlackThread) -> str | None:
    """The conversation that a thread is; None: nobody has written to an agent there."""
    query = select(slack_threads.c.conversation_id).where(
        slack_threads.c.tenant_id == tenant_id,
        slack_threads.c.team_id == thread.team_id,
        slack_threads.c.channel_id == thread.channel_id,
        slack_threads.c.thread_ts == thread.thread_ts,
    )
    found: str | None = await connection.scalar(query)
    return found


async def add(connection: AsyncConnection, tenant_id: str, thread: SlackThread) -> str | None:
    """Make a thread a conversation, which has no message yet. None: it is one already."""
    values = {"tenant_id": tenant_id, **vars(thread), "conversation_id": new_conversation_id()}
    added: str | None = await connection.scalar(_ADD, values)
    return added


async def of_conversation(connection: AsyncConnection, tenant_id: str, conversation_id: str) -> SlackThread | None:
    """The thread that a conversation is; None: it is none."""
    query = select(slack_threads).where(
        slack_threads.c.tenant_id == tenant_id, slack_threads.c.conversation_id == conversation_id
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else SlackThread(row.team_id, row.channel_id, row.thread_ts)
