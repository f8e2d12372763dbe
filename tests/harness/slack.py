"""Slack as a test has it: a fake, what it sends signed, and people with accounts."""

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from holdfast.testing import slack as fake
from holdfast.testing.slack import FakeSlack, Json, SlackMessage, Trouble
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage

SECRET = "a signing secret of the tests"
TENANT = "of-slack"

_numbers = itertools.count(1)


def settings(slack: FakeSlack, agent: str = "support") -> dict[str, Any]:
    """Settings of an API and a worker with this Slack."""
    return {
        "slack_bot_token": SecretStr("xoxb-of-the-tests"),
        "slack_team": fake.TEAM,
        "slack_tenant": TENANT,
        "slack_api_url": slack.url,
        "slack_signing_secret": SecretStr(SECRET),
        "slack_agent": agent,
    }


@dataclass
class Place:
    """A channel, or a direct message, of one test; with what Slack sends to one API about it."""

    url: str
    slack: FakeSlack
    channel: str
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=30))

    async def event(self, payload: Json, **headers: str) -> httpx.Response:
        """Send an event, as Slack does."""
        request = httpx.Request("POST", self.url, json=payload)
        return await self.raw("/slack/events", request.content, **{"content-type": "application/json", **headers})

    async def raw(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        """Send a body, signed unless the headers say otherwise."""
        return await self.http.post(f"{self.url}{path}", content=body, headers={**fake.signed(SECRET, body), **headers})

    async def press(self, message: SlackMessage, action: str, user: str, value: str | None = None) -> httpx.Response:
        """Have somebody press a button of a message."""
        return await self._interaction(fake.button_press(message, action, user, value))

    async def send(self, view: Json, user: str, reason: str | None = None) -> httpx.Response:
        """Have somebody send a modal."""
        return await self._interaction(fake.modal_sent(view, user, reason))

    async def _interaction(self, payload: Json) -> httpx.Response:
        body = fake.interaction(payload)
        return await self.raw("/slack/interactions", body, **{"content-type": "application/x-www-form-urlencoded"})

    def message(self, text: str, user: str, *, ts: str | None = None, kind: str = "message", **others: Any) -> Json:
        """An event of a message here."""
        event_id = f"Ev{next(_numbers)}"
        return fake.message_event(
            text, user=user, channel=self.channel, ts=ts or new_ts(), event_id=event_id, kind=kind, **others
        )

    def script(self, method: str, *troubles: Trouble) -> None:
        """What is to go wrong with the next calls of a method of Slack's about this channel, one each."""
        self.slack.script(method, *troubles, channel=self.channel)

    def calls(self, method: str) -> int:
        """How often a method of Slack's was called about this channel."""
        return self.slack.calls[method, self.channel]

    def messages(self) -> list[SlackMessage]:
        """All that the app posted here."""
        return [one for one in self.slack.messages if one.channel == self.channel]

    async def posted(self, thread_ts: str, count: int = 1) -> list[SlackMessage]:
        """The app's messages in a thread, as soon as there are so many."""
        await until(lambda: len(self.slack.in_thread(self.channel, thread_ts)) >= count)
        return self.slack.in_thread(self.channel, thread_ts)

    async def said(self, user: str, count: int = 1) -> str:
        """What one person alone was told last, as soon as it was told so often."""

        def whispers() -> list[str]:
            return [one["text"] for one in self.slack.whispers if (one["channel"], one["user"]) == (self.channel, user)]

        await until(lambda: len(whispers()) >= count)
        assert len(whispers()) == count
        return whispers()[-1]


def new_ts() -> str:
    """The `ts` of a message that nobody wrote before."""
    return f"{int(time.time())}.{next(_numbers):06d}"


def mention(text: str) -> str:
    """A text that names the app."""
    return f"<@{fake.APP_USER}> {text}"


async def person(stage: Stage, name: str, *roles: str) -> str:
    """A person with an account of Slack, linked with these roles; answers with the account's id."""
    root = await stage.caller(TENANT, person="root")
    user = f"U{next(_numbers)}"
    await link(root, user, name, *roles)
    return user


async def link(root: Caller, user: str, principal: str, *roles: str) -> None:
    """Link an account to a principal."""
    body = {"kind": "slack", "subject": f"{fake.TEAM}/{user}", "principal": principal, "roles": list(roles)}
    response = await root.http.put("/v1/identities", json=body)
    assert response.status_code == 200, response.text
