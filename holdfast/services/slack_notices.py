"""What only one person of a thread is told, and modals: beside the answer that Slack waits for, as well as it goes.

Nothing durable hangs on them. Slack wants its answer within three seconds, and must not have to wait for itself.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from holdfast.channels.slack_client import SlackClient, SlackError
from holdfast.domain.slack import SlackPlace, Workspace

log = logging.getLogger(__name__)

#: The most that are on their way at once; more are not sent.
_MOST = 200


class SlackNotices:
    """Sends them. `close` lets those on their way arrive."""

    def __init__(self, workspaces: Mapping[str, Workspace], client: Callable[[str], SlackClient]) -> None:
        self._clients = {team_id: client(workspace.bot_token) for team_id, workspace in workspaces.items()}
        self._sending: set[asyncio.Task[None]] = set()

    def tell(self, workspace: Workspace, place: SlackPlace, user_id: str, text: str) -> None:
        """Tell one person something that nobody else there sees."""
        self._begin(self._clients[workspace.team_id].whisper(place, user_id, text))

    def open(self, workspace: Workspace, trigger_id: str, view: dict[str, Any]) -> None:
        """Open a modal for whoever pressed a button just now."""
        self._begin(self._clients[workspace.team_id].open(trigger_id, view))

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _begin(self, sending: Coroutine[Any, Any, None]) -> None:
        if len(self._sending) >= _MOST:
            sending.close()
            log.warning("a notice in Slack is left out: %s are on their way", _MOST)
            return
        task = asyncio.create_task(_sent(sending))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def _sent(sending: Coroutine[Any, Any, None]) -> None:
    try:
        await sending
    except SlackError as error:
        log.warning("a notice in Slack was not seen: %s", error)
