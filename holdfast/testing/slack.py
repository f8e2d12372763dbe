"""A Slack that does as it is told: its Web API over real HTTP, with what was posted there on record.

    with FakeSlack() as slack:
        slack.script("chat.postMessage", RateLimited(1), DiesAfterwards(), channel="C1")
        ...  # slack_sdk's client, with base_url=slack.url
        assert [message.text for message in slack.messages] == ["hello"]

It keeps messages, with their metadata, as Slack does, and finds them again for `conversations.replies`. The functions
below make what Slack sends: events, presses of buttons, modals that are sent, and the signature on all of it.
"""

import asyncio
import hashlib
import hmac
import json
import threading
import time
from collections import Counter, defaultdict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from holdfast.channels import slack_client

Json = dict[str, Any]

#: Of the workspace, and of the app in it.
TEAM, APP, APP_USER, BOT = "T0HOLDFAST", "A0HOLDFAST", "U0HOLDFAST", "B0HOLDFAST"

#: All that the app asks for, and has.
SCOPES = ",".join(sorted(slack_client.SCOPES))


@dataclass(frozen=True)
class SlackMessage:
    """A message of the app, as Slack keeps it. `edits`: how often it was changed."""

    channel: str
    ts: str
    thread_ts: str | None
    text: str
    blocks: list[Json]
    metadata: Json
    edits: int = 0

    @property
    def buttons(self) -> dict[str, str]:
        """What its buttons carry, by their actions."""
        rows = [block["elements"] for block in self.blocks if block["type"] == "actions"]
        return {button["action_id"]: button["value"] for row in rows for button in row}


@dataclass(frozen=True)
class RateLimited:
    """429, for so many seconds."""

    seconds: int = 1


@dataclass(frozen=True)
class Refused:
    """`{"ok": false}`, with a code of Slack's."""

    code: str


@dataclass(frozen=True)
class Fails:
    """An accident of Slack's: a status, and a body that is no JSON."""

    status: int = 500


@dataclass(frozen=True)
class DiesAfterwards:
    """It is done, and the connection breaks before the answer."""


@dataclass(frozen=True)
class Holds:
    """It is done when `release` is called, or so many seconds have passed."""

    seconds: float = 60


Trouble = RateLimited | Refused | Fails | DiesAfterwards | Holds


@dataclass
class FakeSlack:
    """Serves on a loopback port, in a thread of its own."""

    port: int = 0
    messages: list[SlackMessage] = field(default_factory=list)
    whispers: list[Json] = field(default_factory=list)
    views: list[Json] = field(default_factory=list)
    #: By method and channel, which is empty where a method is about none.
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What was asked for, by method.
    asked: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    scopes: str = SCOPES
    #: Of the token; empty: the token is a person's.
    bot: str = BOT

    def __post_init__(self) -> None:
        self._script: dict[tuple[str, str], deque[Trouble]] = {}
        self._lock = threading.RLock()
        self._clock = time.time()
        self._released: Future[None] = Future()
        app = Starlette(routes=[Route("/api/{method}", self._serve, methods=["GET", "POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="fake Slack", daemon=True)

    @property
    def url(self) -> str:
        """The base URL of its Web API, once it is started."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/api/"

    def script(self, method: str, *troubles: Trouble, channel: str = "") -> None:
        """What is to go wrong with the next calls of a method in a channel, one each."""
        with self._lock:
            self._script.setdefault((method, channel), deque()).extend(troubles)

    def forget(self, channel: str) -> None:
        """Have no message in a channel any more."""
        with self._lock:
            self.messages[:] = [one for one in self.messages if one.channel != channel]

    def release(self) -> None:
        """Go on with the calls that are held."""
        with self._lock:
            held, self._released = self._released, Future()
        held.set_result(None)

    def in_thread(self, channel: str, thread_ts: str) -> list[SlackMessage]:
        """The app's messages in a thread, in order."""
        with self._lock:
            return [one for one in self.messages if (one.channel, one.thread_ts) == (channel, thread_ts)]

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the fake Slack could not start")
            threading.Event().wait(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        self._server.should_exit = True
        self._thread.join(timeout=10)

    async def _serve(self, request: Request) -> Response:
        method, asked = request.path_params["method"], await _asked(request)
        about = (method, str(asked.get("channel", "")))
        with self._lock:
            self.calls[about] += 1
            self.asked[method].append(asked)
            troubles = self._script.get(about)
            trouble = troubles.popleft() if troubles else None
        match trouble:
            case RateLimited(seconds):
                return JSONResponse({"ok": False, "error": "ratelimited"}, 429, {"retry-after": str(seconds)})
            case Refused(code):
                return JSONResponse({"ok": False, "error": code})
            case Fails(status):
                return Response("<html>", status, media_type="text/html")
            case Holds(seconds):
                await asyncio.wait([asyncio.wrap_future(self._released)], timeout=seconds)
        answer = {"ok": True, **self._done(method, asked)}
        return (
            _Broken() if trouble == DiesAfterwards() else JSONResponse(answer, headers={"x-oauth-scopes": self.scopes})
        )

    def _done(self, method: str, asked: Json) -> Json:
        with self._lock:
            match method:
                case "auth.test":
                    return {"team_id": TEAM, "user_id": APP_USER, "bot_id": self.bot or None}
                case "chat.postMessage":
                    return self._posted(asked)
                case "chat.update":
                    return self._updated(asked)
                case "conversations.replies":
                    return {"messages": [_as_reply(one) for one in self.in_thread(asked["channel"], asked["ts"])]}
                case "chat.postEphemeral":
                    # In a thread, it is shown only if there is one already: nobody sees what is below a lone message.
                    if not asked.get("thread_ts") or self.in_thread(asked["channel"], asked["thread_ts"]):
                        self.whispers.append(asked)
                case "views.open":
                    self.views.append(asked)
                case _:
                    return {"ok": False, "error": "unknown_method"}
        return {}

    def _posted(self, asked: Json) -> Json:
        self._clock = max(self._clock + 0.000_01, time.time())
        ts = f"{self._clock:.6f}"
        message = SlackMessage(
            asked["channel"],
            ts,
            asked.get("thread_ts"),
            asked.get("text", ""),
            asked.get("blocks") or [],
            asked.get("metadata") or {},
        )
        self.messages.append(message)
        return {"channel": message.channel, "ts": ts}

    def _updated(self, asked: Json) -> Json:
        for place, message in enumerate(self.messages):
            if (message.channel, message.ts) == (asked["channel"], asked["ts"]):
                edits = message.edits + 1
                self.messages[place] = replace(message, text=asked["text"], blocks=asked["blocks"], edits=edits)
                return {"ts": message.ts}
        return {"ok": False, "error": "message_not_found"}


class _Broken(Response):
    """An answer that is announced and never comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"100"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


async def _asked(request: Request) -> Json:
    if request.headers.get("content-type", "").startswith("application/json"):
        asked: Json = await request.json()
        return asked
    form = await request.form()
    return {**request.query_params, **{name: _value(str(value)) for name, value in form.items()}}


def _value(text: str) -> Any:
    return json.loads(text) if text[:1] in ("{", "[") else text


def _as_reply(message: SlackMessage) -> Json:
    return {"ts": message.ts, "thread_ts": message.thread_ts, "text": message.text, "metadata": message.metadata}


def signed(secret: str, body: bytes, at: float | None = None) -> dict[str, str]:
    """The headers of a request of Slack's, of now or of another moment."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return {"x-slack-request-timestamp": timestamp, "x-slack-signature": f"v0={digest}"}


def message_event(
    text: str, *, user: str, channel: str, ts: str, event_id: str, kind: str = "message", **others: Any
) -> Json:
    """An event of a message: in a direct one, if the channel's id begins with D."""
    event: Json = {"type": kind, "user": user, "text": text, "ts": ts, "channel": channel, "event_ts": ts, **others}
    if kind == "message":
        event.setdefault("channel_type", "im" if channel.startswith("D") else "channel")
    return {
        "type": "event_callback",
        "team_id": TEAM,
        "api_app_id": APP,
        "event_id": event_id,
        "event_time": int(float(ts)),
        "authorizations": [{"team_id": TEAM, "user_id": APP_USER, "is_bot": True, "is_enterprise_install": False}],
        "event": event,
    }


def button_press(message: SlackMessage, action: str, user: str, value: str | None = None) -> Json:
    """A button of a message, pressed; `value`: what it carries, if it was tampered with."""
    return {
        "type": "block_actions",
        "team": {"id": TEAM},
        "user": {"id": user, "team_id": TEAM},
        "api_app_id": APP,
        "trigger_id": f"trigger-{message.ts}",
        "container": {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": message.channel,
            "thread_ts": message.thread_ts,
        },
        "channel": {"id": message.channel},
        "actions": [
            {
                "type": "button",
                "action_id": action,
                "block_id": "b",
                "value": message.buttons[action] if value is None else value,
            }
        ],
    }


def modal_sent(view: Json, user: str, reason: str | None = None) -> Json:
    """A modal that was opened, sent."""
    values = {} if reason is None else {"reason": {"reason": {"type": "plain_text_input", "value": reason}}}
    return {
        "type": "view_submission",
        "team": {"id": TEAM},
        "user": {"id": user, "team_id": TEAM},
        "api_app_id": APP,
        "view": {**view, "id": "V1", "state": {"values": values}},
    }


def interaction(payload: Json) -> bytes:
    """The body of a request that tells of an interaction."""
    return urlencode({"payload": json.dumps(payload)}).encode()
