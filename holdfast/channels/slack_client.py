"""The Web API of Slack, as far as it is used here, and what its failures mean.

One thing matters of a failure: whether the call may have happened all the same. A message that was posted without an
answer is looked for by what Slack keeps with it (`metadata`): Slack has no idempotency key. (`client_msg_id` is for
Slack's own clients, say the maintainers of its SDK.)
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from holdfast.channels.slack_text import escaped
from holdfast.domain.slack import SlackPlace, SlackThread

API_URL = "https://slack.com/api/"

#: What the app must be allowed: to hear what is said to it, to post, and to find again what it has posted.
SCOPES = frozenset(
    {
        "app_mentions:read",
        "channels:history",
        "chat:write",
        "groups:history",
        "im:history",
        "metadata.message:read",
        "mpim:history",
    }
)

#: How long a call may take, in seconds. No request is on its way for longer.
CALL_S = 10

#: The type of the metadata of our messages; they hold the key of the post.
_POST = "holdfast_post"

_PAGE = 200

#: What may have happened: Slack failed in the middle of it.
_UNKNOWN = frozenset({"fatal_error", "internal_error", "request_timeout", "service_unavailable"})

#: What is wrong with the message itself, or with where it goes, for good. Anything else somebody can mend while it is
#: tried again: the token, the scopes, a restriction, or that the app was removed from the channel (a private one is not
#: found then).
_FINAL = frozenset(
    {
        "cant_update_message",
        "edit_window_closed",
        "invalid_blocks",
        "invalid_blocks_format",
        "is_archived",
        "message_not_found",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
        "thread_not_found",
    }
)

_BUSY = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_BUSY_FOR = timedelta(seconds=30)


class SlackError(Exception):
    """A call of Slack's Web API failed."""


class SlackSilent(SlackError):
    """Slack gave no answer, or one of an accident: the call may have happened."""


class SlackBusy(SlackError):
    """Slack has no time for it now; it did not happen."""

    def __init__(self, detail: str, retry_after: timedelta) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class SlackRefusal(SlackError):
    """Slack refused it; it did not happen. `is_mendable`: trying again may help, once somebody has seen to it."""

    def __init__(self, method: str, code: str) -> None:
        super().__init__(f"Slack refuses {method}: {code}")
        self.code = code
        self.is_mendable = code not in _FINAL


@dataclass(frozen=True)
class Installed:
    """What a token is: of which workspace, for which user of it, whether that is the app's own, with which scopes."""

    team_id: str
    user_id: str
    is_bot: bool
    scopes: frozenset[str]


class SlackClient:
    """Calls Slack with the token of one workspace. Each call raises `SlackError`."""

    def __init__(self, token: str, api_url: str = API_URL) -> None:
        # No retries here: the SDK would post again when a connection broke before the answer.
        self._web = AsyncWebClient(token=token, base_url=api_url, timeout=CALL_S, retry_handlers=[])

    async def installed(self) -> Installed:
        """Whose the token is."""
        async with _understood("auth.test"):
            answer = await self._web.auth_test()
            scopes = str(answer.headers.get("x-oauth-scopes", ""))
            return Installed(
                team_id=str(answer["team_id"]),
                user_id=str(answer["user_id"]),
                is_bot=bool(answer.get("bot_id")),
                scopes=frozenset(scopes.replace(" ", "").split(",")),
            )

    async def post(self, thread: SlackThread, key: str, text: str, blocks: list[dict[str, Any]] | None = None) -> str:
        """Post a message into a thread; answers with its `ts`. `key` is what it can be found by."""
        async with _understood("chat.postMessage"):
            answer = await self._web.chat_postMessage(
                channel=thread.channel_id,
                thread_ts=thread.thread_ts,
                text=text,
                blocks=blocks,
                metadata={"event_type": _POST, "event_payload": {"key": key}},
                # A link that Slack fetches by itself carries out whatever a model was made to write into it.
                unfurl_links=False,
                unfurl_media=False,
                parse="none",
                link_names=False,
            )
            return str(answer["ts"])

    async def update(self, channel_id: str, ts: str, text: str, blocks: list[dict[str, Any]]) -> None:
        """Have a message say something else."""
        async with _understood("chat.update"):
            # Slack's default is another one than for a post: to take the text as if somebody had typed it.
            await self._web.chat_update(
                channel=channel_id, ts=ts, text=text, blocks=blocks, parse="none", link_names=False
            )

    async def find_post(self, thread: SlackThread, key: str, since: datetime) -> str | None:
        """The `ts` of the message of a thread that was posted with a key; None: there is none."""
        cursor: str | None = None
        while True:
            async with _understood("conversations.replies"):
                answer = await self._web.conversations_replies(
                    channel=thread.channel_id,
                    ts=thread.thread_ts,
                    oldest=f"{since.timestamp():.6f}",
                    include_all_metadata=True,
                    limit=_PAGE,
                    cursor=cursor,
                )
                for message in answer.get("messages") or []:
                    if _key_of(message) == key:
                        return str(message["ts"])
                cursor = (answer.get("response_metadata") or {}).get("next_cursor") or None
            if not cursor:
                return None

    async def whisper(self, place: SlackPlace, user_id: str, text: str) -> None:
        """Tell one person something that nobody else sees."""
        async with _understood("chat.postEphemeral"):
            await self._web.chat_postEphemeral(
                channel=place.channel_id,
                thread_ts=place.thread_ts,
                user=user_id,
                text=escaped(text),
                parse="none",
                link_names=False,
            )

    async def open(self, trigger_id: str, view: dict[str, Any]) -> None:
        """Open a modal for whoever has just pressed something."""
        async with _understood("views.open"):
            await self._web.views_open(trigger_id=trigger_id, view=view)


def _key_of(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != _POST:
        return None
    key = (metadata.get("event_payload") or {}).get("key")
    return key if isinstance(key, str) else None


@contextlib.asynccontextmanager
async def _understood(method: str) -> AsyncIterator[None]:
    """Has a failure of a call say whether it may have happened."""
    try:
        yield
    except SlackApiError as error:
        raise _failure(method, error) from None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError, LookupError) as error:
        # The last two: the SDK takes any answer for JSON.
        raise SlackSilent(f"{method} was not answered: {type(error).__name__}") from None


def _failure(method: str, error: SlackApiError) -> SlackError:
    response = error.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    data = response.data if isinstance(response, AsyncSlackResponse) else None
    code = str(data.get("error", "")) if isinstance(data, dict) else ""
    if status == 429 or code in _BUSY:
        return SlackBusy(f"{method}: too many calls", _retry_after(response.headers.get("Retry-After")))
    if status >= 500 or code in _UNKNOWN or not code:
        return SlackSilent(f"{method} failed on Slack's side: {code or status}")
    return SlackRefusal(method, code)


def _retry_after(header: str | None) -> timedelta:
    return timedelta(seconds=min(int(header), 3600)) if header and header.isdecimal() else _BUSY_FOR
