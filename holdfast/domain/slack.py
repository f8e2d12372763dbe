"""Slack: a workspace that a tenant has, and the places in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True)
class Workspace:
    """A workspace of Slack, whose tenant it is, and the token that the app has there."""

    team_id: str
    tenant_id: str
    bot_token: str = field(repr=False)


@dataclass(frozen=True)
class SlackApp:
    """The app of a workspace: which agent it is, by channel where that is said, and the secret with which Slack signs.

    Who only talks to Slack has no such secret.
    """

    workspace: Workspace
    agent: str
    signing_secret: str = field(default="", repr=False)
    agents_by_channel: Mapping[str, str] = field(default_factory=dict)

    def agent_in(self, channel_id: str) -> str:
        """The agent that answers in a channel."""
        return self.agents_by_channel.get(channel_id, self.agent)


def is_team(name: str) -> bool:
    """Whether this could be a workspace's id."""
    return re.fullmatch(r"T[A-Z0-9]+", name) is not None


@dataclass(frozen=True)
class SlackThread:
    """A thread of Slack, which is a conversation of ours. `thread_ts` is its first message's."""

    team_id: str
    channel_id: str
    thread_ts: str


@dataclass(frozen=True)
class SlackPlace:
    """Where a person looks: a channel; or a thread in it, which is there only once somebody has replied."""

    channel_id: str
    thread_ts: str | None


@dataclass(frozen=True)
class SlackUser:
    """An account. Where a channel is shared, `team_id` is another workspace than the one that the app is in."""

    team_id: str
    user_id: str

    @property
    def subject(self) -> str:
        """As an identity of kind slack names it: `T1/U1`."""
        return f"{self.team_id}/{self.user_id}"


@dataclass(frozen=True)
class Pressed:
    """A button of a card that a person pressed, or a modal that they sent. `value`: what it carries."""

    user: SlackUser
    place: SlackPlace
    value: str
    trigger_id: str = ""
    reason: str | None = None


@dataclass(frozen=True)
class SlackMessage:
    """What a person wrote. `is_addressed`: it names the app, or is in a direct message with it.

    `is_said_once` False: Slack says it again as an event of another type, which tells the person what is wrong.
    `has_files`: files are with it, which nobody reads.
    """

    app_id: str
    thread: SlackThread
    ts: str
    user: SlackUser
    text: str
    is_addressed: bool
    is_said_once: bool
    has_files: bool = False

    @property
    def place(self) -> SlackPlace:
        """Where who wrote it looks: what has no replies yet is no thread, and nothing is seen in it."""
        thread_ts = self.thread.thread_ts
        return SlackPlace(self.thread.channel_id, None if thread_ts == self.ts else thread_ts)

    @property
    def said_at(self) -> datetime:
        """When it was written, which may be hours before Slack can tell us."""
        return datetime.fromtimestamp(float(self.ts), UTC)

    @property
    def key(self) -> str:
        """Names the message, whichever events tell of it, and however often."""
        # An event's id says no more: each belongs to one message, and a message that mentions the app has two.
        return f"slack:{self.app_id}:{self.thread.team_id}:{self.thread.channel_id}:{self.ts}"
