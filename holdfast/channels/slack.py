"""What is told to a thread of Slack: the reply of each run, and a card for each confirmation, as it is now.

Both are posts (`holdfast.store.slack_posts`), made once. A card is brought up to what the confirmation is by whichever
event comes: deliveries overtake each other, so none of them trusts what its own event says.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from holdfast.channels.channel import Permanent, Retryable
from holdfast.channels.slack_cards import Block, card, digest, reminder
from holdfast.channels.slack_client import CALL_S, SlackBusy, SlackClient, SlackRefusal, SlackSilent
from holdfast.channels.slack_text import MAX_TEXT, as_mrkdwn, cut
from holdfast.domain.confirmations import Confirmation, ConfirmationStatus
from holdfast.domain.deliveries import Delivery
from holdfast.domain.events import ConfirmationReminded
from holdfast.domain.permissions import WHOLE_TENANT
from holdfast.domain.slack import SlackThread, Workspace
from holdfast.store import confirmations, messages, slack_posts, slack_threads
from holdfast.store.engine import Database
from holdfast.store.slack_posts import Claim, Post

log = logging.getLogger(__name__)

#: How long all calls of one attempt may take, in seconds; a delivery has a minute.
_ATTEMPT_S = 45

#: A worker that holds a post longer than this is dead.
_CLAIMED_FOR = timedelta(seconds=60)

#: When to come back to a post that another delivery is working on.
_WHILE_CLAIMED = timedelta(seconds=2)

#: How far Slack's clock may be behind PostgreSQL's, where a message is looked for.
_CLOCKS = timedelta(minutes=5)

#: How long after it was sent a request that nobody waits for any more may still arrive, in seconds.
_ON_ITS_WAY_S = CALL_S + 5.0

#: Of a message that is to be changed, and isn't there any more: nothing stale is left.
_GONE = frozenset({"message_not_found", "is_archived", "thread_not_found"})

#: A reminder is a post of its own, below the card.
_REMINDER = ":reminder"

#: What a run that ends without a reply leaves to say.
_WITHOUT_REPLY = {
    "run.cancelled": "Stopped.",
    "run.failed": "I'm sorry, something went wrong on our side, and this message could not be handled.",
}


class SlackChannel:
    """Tells threads of Slack.

    Args:
        database: where the posts are.
        workspaces: those of this deployment, by their id.
        client: calls Slack with a token.
        on_its_way_s: how long to wait for a message that may still arrive, before it is posted again.
    """

    def __init__(
        self,
        database: Database,
        workspaces: Mapping[str, Workspace],
        client: Callable[[str], SlackClient],
        on_its_way_s: float = _ON_ITS_WAY_S,
    ) -> None:
        self._database = database
        self._clients = {team_id: client(workspace.bot_token) for team_id, workspace in workspaces.items()}
        self._workspaces = workspaces
        self._on_its_way_s = on_its_way_s

    async def deliver(self, delivery: Delivery) -> None:
        """Post or change what the event is about.

        Raises:
            Permanent: Slack will not have it.
            Retryable: Slack does not answer, or has no time, or somebody must mend something first.
        """
        async with self._database.tenant(delivery.tenant_id) as connection:
            thread = await slack_threads.of_conversation(connection, delivery.tenant_id, delivery.conversation_id)
        if thread is None:
            raise Permanent("the conversation is no thread of Slack")
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                await self._tell(self._client(delivery.tenant_id, thread), thread, delivery)
        except (SlackSilent, TimeoutError) as error:
            raise Retryable(str(error) or "Slack takes too long") from None
        except SlackBusy as error:
            raise Retryable(str(error), error.retry_after) from None
        except SlackRefusal as error:
            log.warning("a thread of %s could not be told: %s", thread.team_id, error)
            raise (Retryable if error.is_mendable else Permanent)(str(error)) from None

    def _client(self, tenant_id: str, thread: SlackThread) -> SlackClient:
        workspace = self._workspaces.get(thread.team_id)
        # A workspace that was another tenant's when the thread began must not hear of it now.
        if workspace is None or workspace.tenant_id != tenant_id:
            raise Retryable("no token is set for the workspace (HOLDFAST_SLACK_BOT_TOKEN)")
        return self._clients[thread.team_id]

    async def _tell(self, slack: SlackClient, thread: SlackThread, delivery: Delivery) -> None:
        confirmation_id = str(delivery.data.get("confirmation_id", ""))
        is_reminder = delivery.type == ConfirmationReminded.TYPE
        subject_id = f"{confirmation_id}{_REMINDER}" if is_reminder else confirmation_id or delivery.run_id
        own = Claim(delivery.tenant_id, subject_id, delivery.delivery_id)
        async with self._claimed(own) as post:
            # Read after it was claimed: whoever changes it later has a delivery of their own to wait with.
            if not confirmation_id:
                await self._reply(slack, thread, own, post, delivery)
            elif is_reminder:
                await self._remind(slack, thread, own, post)
            else:
                await self._show(slack, thread, own, post)

    @asynccontextmanager
    async def _claimed(self, own: Claim) -> AsyncIterator[Post]:
        async with self._database.tenant(own.tenant_id) as connection:
            post = await slack_posts.claim(connection, own, _CLAIMED_FOR)
        if post is None:
            raise Retryable("another delivery is about the same message", _WHILE_CLAIMED)
        try:
            yield post
        finally:
            async with self._database.tenant(own.tenant_id) as connection:
                await slack_posts.release(connection, own)

    async def _reply(self, slack: SlackClient, thread: SlackThread, own: Claim, post: Post, delivery: Delivery) -> None:
        if post.ts is not None or await self._found(slack, thread, own, post):
            return
        async with self._database.tenant(own.tenant_id) as connection:
            reply = (await messages.replies_of(connection, own.tenant_id, [own.subject_id])).get(own.subject_id)
        said = _WITHOUT_REPLY.get(delivery.type) if reply is None else as_mrkdwn(reply)
        if said:
            text = cut(said, MAX_TEXT, f"\n… cut; the whole of it: `holdfast runs show {own.subject_id}`")
            await self._post(slack, thread, own, post, text, None)

    async def _remind(self, slack: SlackClient, thread: SlackThread, own: Claim, post: Post) -> None:
        if post.ts is not None or await self._found(slack, thread, own, post):
            return
        confirmation = await self._confirmation(own)
        if confirmation is not None and confirmation.status is ConfirmationStatus.PENDING:
            await self._post(slack, thread, own, post, reminder(confirmation), None)

    async def _show(self, slack: SlackClient, thread: SlackThread, own: Claim, post: Post) -> None:
        ts = post.ts or await self._found(slack, thread, own, post)
        confirmation = await self._confirmation(own)
        if confirmation is None:
            raise Permanent("what happened was erased")
        text, blocks = card(confirmation)
        if ts is not None:
            if post.shown != digest(text, blocks):
                await self._change(slack, thread, own, ts, text, blocks)
        elif confirmation.status is ConfirmationStatus.PENDING:
            await self._post(slack, thread, own, post, text, blocks)

    async def _confirmation(self, own: Claim) -> Confirmation | None:
        async with self._database.tenant(own.tenant_id) as connection:
            confirmation_id = own.subject_id.removesuffix(_REMINDER)
            found = await confirmations.find(connection, own.tenant_id, confirmation_id, WHOLE_TENANT)
        return found if found is not None and found.arguments_digest else None

    async def _found(self, slack: SlackClient, thread: SlackThread, own: Claim, post: Post) -> str | None:
        """The message, if an attempt before has made one of which nobody heard."""
        if post.attempted_s_ago is None:
            return None
        ts = await slack.find_post(thread, post.post_key, post.created_at - _CLOCKS)
        if ts is None:
            left = self._on_its_way_s - post.attempted_s_ago
            if left > 0:
                raise Retryable("an attempt before may still arrive", timedelta(seconds=left))
            return None
        async with self._database.tenant(own.tenant_id) as connection:
            await slack_posts.shown(connection, own, ts, None)
        return ts

    async def _post(
        self, slack: SlackClient, thread: SlackThread, own: Claim, post: Post, text: str, blocks: list[Block] | None
    ) -> None:
        async with self._database.tenant(own.tenant_id) as connection:
            if not await slack_posts.attempt(connection, own, post):
                raise Retryable("another delivery is about the same message", _WHILE_CLAIMED)
        try:
            ts = await slack.post(thread, post.post_key, text, blocks)
        except (SlackBusy, SlackRefusal):
            async with self._database.tenant(own.tenant_id) as connection:
                await slack_posts.refused(connection, own)
            raise
        async with self._database.tenant(own.tenant_id) as connection:
            await slack_posts.shown(connection, own, ts, digest(text, blocks or []))

    async def _change(
        self, slack: SlackClient, thread: SlackThread, own: Claim, ts: str, text: str, blocks: list[Block]
    ) -> None:
        try:
            await slack.update(thread.channel_id, ts, text, blocks)
        except SlackRefusal as refusal:
            if refusal.code not in _GONE:
                raise
            log.info("a card in Slack can't be changed any more: %s", refusal.code)
        async with self._database.tenant(own.tenant_id) as connection:
            await slack_posts.shown(connection, own, ts, digest(text, blocks))
