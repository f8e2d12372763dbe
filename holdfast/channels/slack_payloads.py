"""What Slack sends, read: a person's message in an event, a person's press in an interaction. Pure.

Only what Slack has signed comes here. Its shape is Slack's to change, so nothing is relied on that is not looked at.
"""

import re
from collections.abc import Mapping
from typing import Any

from holdfast.channels.slack_cards import REASON
from holdfast.channels.slack_text import as_plain, names
from holdfast.domain.slack import Pressed, SlackMessage, SlackPlace, SlackThread, SlackUser
from holdfast.domain.storable import is_storable

#: Of a person's new message; any other is a change, a removal, a notice of Slack's own, or a bot's.
_SUBTYPES = ("", "file_share", "me_message", "thread_broadcast")

#: Writes notices of Slack's own.
_SLACKBOT = "USLACKBOT"

#: What names a message is the moment at which it was written.
_TS = re.compile(r"[0-9]{1,11}\.[0-9]{1,9}")


def message_of(payload: Mapping[str, Any], team_id: str) -> SlackMessage | None:
    """The message of an event; None: it tells of none, or of one that is no person's new one.

    Args:
        payload: the event.
        team_id: the workspace that the app is in. The person's is another, where a channel is shared.
    """
    event = _part(payload, "event")
    app_user = _app_user(payload)
    channel, ts, user = _text(event, "channel"), _text(event, "ts"), _text(event, "user")
    home = _home(payload, event, team_id)
    if (
        not _is_new(event)
        or not _is_a_persons(event)
        or not (channel and _TS.fullmatch(ts) and user and home)
        or user == app_user
    ):
        return None
    written = _text(event, "text")
    is_direct = _text(event, "channel_type") == "im" or channel.startswith("D")
    is_mention = _text(event, "type") == "app_mention"
    names_app = names(written, app_user)
    return SlackMessage(
        app_id=_text(payload, "api_app_id"),
        thread=SlackThread(team_id, channel, _text(event, "thread_ts") or ts),
        ts=ts,
        user=SlackUser(home, user),
        text=as_plain(written, app_user),
        is_addressed=is_direct or is_mention or names_app,
        is_said_once=is_direct or is_mention or not names_app,
        has_files=bool(event.get("files")),
    )


def press_of(payload: Mapping[str, Any], team_id: str) -> Pressed | None:
    """What was pressed in an interaction; None: nothing that carries anything."""
    user, view, container = _part(payload, "user"), _part(payload, "view"), _part(payload, "container")
    value = _text(view, "private_metadata") or _text(_first(payload, "actions"), "value")
    user_id = _text(user, "id")
    if not value or not user_id:
        return None
    reason = _part(_part(_part(_part(view, "state"), "values"), REASON), REASON)
    return Pressed(
        user=SlackUser(_text(user, "team_id") or team_id, user_id),
        place=SlackPlace(_text(container, "channel_id"), _text(container, "thread_ts") or None),
        value=value,
        trigger_id=_text(payload, "trigger_id"),
        reason=_text(reason, "value").strip() or None,
    )


def _is_new(event: Mapping[str, Any]) -> bool:
    # A mention that is added by an edit comes as a mention, too.
    is_message = _text(event, "type") in ("message", "app_mention") and "edited" not in event
    return is_message and event.get("subtype", "") in _SUBTYPES


def _is_a_persons(event: Mapping[str, Any]) -> bool:
    return not event.get("bot_id") and not event.get("bot_profile") and event.get("user") != _SLACKBOT


def _home(payload: Mapping[str, Any], event: Mapping[str, Any], team_id: str) -> str:
    """The workspace that a person is of; empty: it can't be told.

    In a channel that is shared with others, a mention names it as `user_team` and says ours for `team`; a message names
    it as `team` alone. An id of a user says nothing without it: another workspace may have the same.
    """
    named = _text(event, "user_team") or _text(event, "source_team") or _text(event, "team")
    if not named:
        return "" if payload.get("is_ext_shared_channel") else team_id
    # Of an enterprise, there are the same users in each of its workspaces.
    own_enterprise = _text(_first(payload, "authorizations"), "enterprise_id")
    return team_id if named == own_enterprise else named


def _app_user(payload: Mapping[str, Any]) -> str:
    """The user that the app itself is in the workspace."""
    authorization = _first(payload, "authorizations")
    return _text(authorization, "user_id") if authorization.get("is_bot") else ""


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) and is_storable(value) else ""


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _first(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
