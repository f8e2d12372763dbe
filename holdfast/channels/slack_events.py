"""What Slack's Events API tells: the messages among it that are for an agent. Pure."""

from collections.abc import Mapping
from typing import Any

from holdfast.channels.slack_text import as_plain
from holdfast.domain.slack import SlackMessage, SlackThread, SlackUser

#: Of a person's new message; any other is a change, a removal, a notice of Slack's own, or a bot's.
_SUBTYPES = frozenset({None, "file_share", "me_message", "thread_broadcast"})

#: Writes notices of Slack's own.
_SLACKBOT = "USLACKBOT"


def message_of(payload: Mapping[str, Any]) -> SlackMessage | None:
    """The message of an event; None: it tells of none, or of one that is no person's new one."""
    event = payload.get("event")
    if not isinstance(event, dict) or not _is_new(event) or not _is_a_persons(event):
        return None
    team, channel, ts = _text(payload, "team_id"), _text(event, "channel"), _text(event, "ts")
    user = _text(event, "user")
    app_user = _app_user(payload)
    if not (team and channel and ts and user) or user == app_user:
        return None
    written = _text(event, "text") or ""
    is_direct = event.get("channel_type") == "im" or channel.startswith("D")
    is_mention = event.get("type") == "app_mention"
    names_app = app_user is not None and f"<@{app_user}>" in written
    return SlackMessage(
        app_id=_text(payload, "api_app_id") or "",
        thread=SlackThread(team, channel, _text(event, "thread_ts") or ts),
        ts=ts,
        user=SlackUser(_text(event, "user_team") or team, user),
        text=as_plain(written, app_user),
        is_addressed=is_direct or is_mention or names_app,
        is_said_once=is_direct or is_mention or not names_app,
    )


def _is_new(event: Mapping[str, Any]) -> bool:
    # A mention that is added by an edit comes as a mention, too.
    return (
        event.get("type") in ("message", "app_mention") and event.get("subtype") in _SUBTYPES and "edited" not in event
    )


def _is_a_persons(event: Mapping[str, Any]) -> bool:
    return not event.get("bot_id") and not event.get("bot_profile") and event.get("user") != _SLACKBOT


def _app_user(payload: Mapping[str, Any]) -> str | None:
    """The user that the app itself is in the workspace."""
    authorizations = payload.get("authorizations")
    for one in authorizations if isinstance(authorizations, list) else []:
        if isinstance(one, dict) and one.get("is_bot"):
            return _text(one, "user_id")
    return None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) and value else None
