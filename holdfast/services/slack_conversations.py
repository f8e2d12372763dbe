"""Threads of Slack as conversations: begun by the first message that is accepted there, and told of from then on."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.channels.slack_cards import is_whole
from holdfast.domain import events
from holdfast.domain.confirmations import Confirmation, Decision
from holdfast.domain.deliveries import Subscription
from holdfast.domain.errors import Conflict
from holdfast.domain.slack import SlackThread
from holdfast.store import slack_posts, slack_threads, subscriptions, turns
from holdfast.store.turns import Conversation

#: What a thread is told: replies, and confirmations with all that becomes of them.
TOLD = tuple(
    kind.TYPE
    for kind in (
        events.RunCompleted,
        events.RunFailed,
        events.RunCancelled,
        events.ConfirmationRequested,
        events.ConfirmationReminded,
        events.ConfirmationEscalated,
        events.ConfirmationDecided,
        events.ConfirmationExpired,
        events.ConfirmationWithdrawn,
    )
)


async def conversation_of(connection: AsyncConnection, tenant_id: str, thread: SlackThread) -> Conversation:
    """The conversation that a thread is, locked; it begins one, if it is none yet."""
    found = await slack_threads.find(connection, tenant_id, thread)
    if found is None:
        found = await slack_threads.add(connection, tenant_id, thread)
        if found is not None:
            await subscriptions.put(connection, tenant_id, Subscription(found, "slack", TOLD, conversation_id=found))
        else:
            # Another message of the thread has just begun it.
            found = await slack_threads.find(connection, tenant_id, thread)
    assert found is not None
    conversation = await turns.look(connection, tenant_id, found)
    assert conversation is not None
    return conversation


async def has_been_shown(
    connection: AsyncConnection, tenant_id: str, asked: Confirmation, said_at: datetime, decision: Decision
) -> bool:
    """Whether who said "yes" or "no" at a moment had before their eyes what they decide.

    Both moments are Slack's, which tells of a message up to hours after it was written, and may show a card as late.

    Raises:
        Conflict: they approve more than the card shows.
    """
    shown_at = await slack_posts.shown_at(connection, tenant_id, asked.confirmation_id, asked.created_at)
    is_shown = shown_at is not None and shown_at <= said_at
    if is_shown and decision is Decision.APPROVE and not is_whole(asked):
        raise Conflict(f"The card shows only a part of what {asked.tool} would run with; approve it as the card says.")
    return is_shown
