"""What people write to agents in Slack: accepted for good before Slack is answered, and refused in private."""

import logging
from collections.abc import Mapping
from typing import Any

from holdfast.channels.slack_payloads import message_of
from holdfast.domain.errors import HoldfastError, IdempotencyMismatch, Unavailable
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.principals import IdentityKind
from holdfast.domain.slack import SlackApp, SlackMessage, SlackUser, Workspace
from holdfast.services.messages import Messages
from holdfast.services.principals import Principals
from holdfast.services.slack_notices import SlackNotices
from holdfast.store import slack_threads
from holdfast.store.engine import Database

log = logging.getLogger(__name__)

_ONLY_FILES = "I can't read files, and there is no text beside them, so I have done nothing."


def stranger(user: SlackUser) -> str:
    """What somebody is told whose account is not linked."""
    return (
        "I don't know you yet, so I have done nothing. Somebody who administers Holdfast can link your account: "
        f"`holdfast identities link slack {user.subject} YOUR-NAME --role client`"
    )


def lacking(permission: Permission) -> str:
    """What somebody is told whose roles don't give a permission."""
    return f"Your roles don't give the permission `{permission}`, so I have done nothing."


class SlackMessages:
    """Accepts messages. What can't be accepted is told to whoever wrote it, and to nobody else."""

    def __init__(self, database: Database, messages: Messages, principals: Principals, notices: SlackNotices) -> None:
        self._database = database
        self._messages = messages
        self._principals = principals
        self._notices = notices

    async def receive(self, app: SlackApp, payload: Mapping[str, Any]) -> None:
        """Accept the message of an event, once, if it is one for the agent.

        Raises:
            Unavailable: the database does not answer; Slack is to say it again.
        """
        message = message_of(payload, app.workspace.team_id)
        if message is None or not await self._is_for_agent(app.workspace, message):
            return
        refusal = await self._refusal(app, message)
        if refusal is not None and message.is_said_once:
            self._notices.tell(app.workspace, message.place, message.user.user_id, refusal)

    async def _is_for_agent(self, workspace: Workspace, message: SlackMessage) -> bool:
        """Whether it names the app, or is in a thread in which the agent takes part."""
        if not (message.text or message.has_files):
            return False
        if message.is_addressed:
            return True
        async with self._database.tenant(workspace.tenant_id) as connection:
            return await slack_threads.find(connection, workspace.tenant_id, message.thread) is not None

    async def _refusal(self, app: SlackApp, message: SlackMessage) -> str | None:
        """Accept it. Why it was not, if it was not."""
        caller = await self._principals.account(app.workspace.tenant_id, IdentityKind.SLACK, message.user.subject)
        if caller is None:
            # Whoever talks to others in a thread, and to nobody here, is let be.
            return stranger(message.user) if message.is_addressed else None
        if not caller.may(Permission.MESSAGES_SEND):
            return lacking(Permission.MESSAGES_SEND)
        if not message.text:
            return _ONLY_FILES
        try:
            await self._accept(app, caller, message)
        except Unavailable:
            raise
        except HoldfastError as error:
            return str(error)
        return None

    async def _accept(self, app: SlackApp, caller: Caller, message: SlackMessage) -> None:
        thread = message.thread
        metadata = {"slack": {"team": thread.team_id, "channel": thread.channel_id, "ts": message.ts}}
        new = NewMessage(
            agent=app.agent_in(thread.channel_id),
            text=message.text,
            metadata=metadata,
            key=message.key,
            said_at=message.said_at,
        )
        try:
            await self._messages.accept(caller, new, thread)
        except IdempotencyMismatch:
            # It was accepted before, and differs: the account is another person's by now, say.
            log.info("a message of Slack came again, not quite the same: %s", message.key)
