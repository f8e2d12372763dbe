"""What Slack sends and is shown, without a Slack: text, events, cards."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.channels import slack_cards
from holdfast.channels.slack_client import SlackClient
from holdfast.channels.slack_payloads import message_of, press_of
from holdfast.channels.slack_text import as_mrkdwn, as_plain, cut
from holdfast.domain.confirmations import Confirmation, ConfirmationKind, ConfirmationStatus, Decision
from holdfast.domain.slack import SlackPlace, SlackThread
from holdfast.testing import slack as fake

ASKED = Confirmation(
    confirmation_id="conf_1",
    kind=ConfirmationKind.CALL,
    tool_call_id="call_1",
    run_id="run_1",
    conversation_id="conv_1",
    agent="support",
    tool="refund_order",
    arguments={"order": 7, "note": "as agreed"},
    arguments_digest="d" * 64,
    arguments_schema=None,
    rule="refund_order: confirm",
    requested_by="ada",
    sent_by="ada",
    approvers=("billing",),
    four_eyes=True,
    deadline=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    on_deadline="reject",
    remind_at=None,
    reminded_at=None,
    escalate=None,
    escalated_at=None,
    status=ConfirmationStatus.PENDING,
    decision=None,
    edited_arguments=None,
    decided_by=None,
    decided_via=None,
    decided_at=None,
    reason=None,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<@UAPP> hello <@UAPP|mira>", "hello"),
        ("5 &lt; 6 &amp;amp; &gt; 4", "5 < 6 &amp; > 4"),
        (
            "see <https://example.com|the page> or <https://example.com>",
            "see the page (https://example.com) or https://example.com",
        ),
        ("<mailto:a@example.com|a@example.com>", "mailto:a@example.com"),
        ("<@U1|ada> in <#C1|general>, <!here>, <!subteam^S1|@team>", "@ada in #general, !here, @team"),
    ],
)
def test_what_a_person_wrote_is_read_without_slacks_notation(written: str, read: str) -> None:
    assert as_plain(written, "UAPP") == read


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<!channel> <@U1> a & b", "&lt;!channel&gt; &lt;@U1&gt; a &amp; b"),
        ("## Head ##\n# #", "*Head*\n*#*"),
        ("# Head **line**\n- **one** ~~two~~\n* three", "*Head line*\n• *one* ~two~\n• three"),
        ("[your bank](https://evil.example/?q=1)", "your bank (https://evil.example/?q=1)"),
        ("![](https://evil.example/x.png)", "![](https://evil.example/x.png)"),
        ("a\n```python\n**x** = [1](2) < 3\n```\n**b**", "a\n```\n**x** = [1](2) &lt; 3\n```\n*b*"),
        ("2 * 3 ** 4 and a_b_c", "2 * 3 ** 4 and a_b_c"),
    ],
)
def test_what_a_model_wrote_is_shown_and_never_obeyed(said: str, shown: str) -> None:
    assert as_mrkdwn(said) == shown


@pytest.mark.parametrize("opening", ["**a ", "~~a ", "[a](", "# a "])
def test_marks_that_only_open_hold_up_nobody(opening: str) -> None:
    """Where each looked for its end through the whole text, this took minutes."""
    said = opening * 25_000
    assert len(as_mrkdwn(said)) >= len(said) - 3


async def test_nothing_that_is_posted_is_read_as_names_or_links_and_slack_fetches_nothing() -> None:
    """What is said in arguments beside the text, where Slack's defaults are others, and differ."""
    with fake.FakeSlack() as slack:
        client = SlackClient("xoxb-1", slack.url)
        ts = await client.post(SlackThread("T1", "C1", "1.0"), "key", "@here", [])
        await client.update("C1", ts, "@here", [])
        await client.whisper(SlackPlace("C1", "1.0"), "U1", "<!here> & others")
        (posted,), (updated,), (whispered,) = (
            slack.asked[method] for method in ("chat.postMessage", "chat.update", "chat.postEphemeral")
        )
    assert [asked["parse"] for asked in (posted, updated, whispered)] == ["none"] * 3
    off = {
        posted["unfurl_links"],
        posted["unfurl_media"],
        *(asked["link_names"] for asked in (posted, updated, whispered)),
    }
    assert off <= {False, "0"}, "as JSON or as a form"
    assert whispered["text"] == "&lt;!here&gt; &amp; others"


def test_a_text_is_cut_between_characters_and_says_so() -> None:
    assert cut("a &amp; b", 9, "…") == "a &amp; b"
    assert cut("abcd &amp; more", 9, "…") == "abcd …"


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"type": "message"},
        {"type": "message", "user": 7, "channel": "C1", "ts": "1.0"},
        {"type": "message", "user": "U1", "channel": {"id": "C1"}, "ts": "1.0"},
        {"type": "message", "user": "USLACKBOT", "channel": "C1", "ts": "1.0"},
        {"type": "message", "user": "U1", "channel": "C1\0", "ts": "1.0"},
        {"type": "message", "user": "U1\ud800", "channel": "C1", "ts": "1.0"},
        {"type": "message", "user": "U1", "channel": "C1", "ts": "nan"},
        {"type": "message", "user": "U1", "channel": "C1", "ts": "1.0", "subtype": {"a": 1}},
    ],
)
def test_what_is_no_persons_message_is_none(event: Any) -> None:
    assert message_of({"team_id": "T1", "event": event}, "T1") is None
    assert press_of({"actions": event, "user": event, "view": event}, "T1") is None


def test_what_the_app_itself_wrote_is_no_persons_message() -> None:
    by = {
        user: fake.message_event("hi", user=user, channel="C1", ts="1.0", event_id="E")
        for user in ("U1", fake.APP_USER)
    }
    assert [message_of(event, "T1") is None for event in by.values()] == [False, True]


@pytest.mark.parametrize(
    ("of_event", "of_payload", "home"),
    [
        ({}, {}, "T1"),
        ({"team": "T1"}, {}, "T1"),
        # As Slack Connect has it: a mention, and a message, of somebody of another workspace or enterprise.
        ({"team": "T1", "user_team": "T2", "source_team": "T2"}, {"is_ext_shared_channel": True}, "T2"),
        ({"team": "T1", "user_team": "E2", "source_team": "E2"}, {"is_ext_shared_channel": True}, "E2"),
        ({"team": "T2"}, {"team_id": "T2", "is_ext_shared_channel": True}, "T2"),
        ({"team": "T1"}, {"is_ext_shared_channel": True}, "T1"),
        ({"source_team": "T2"}, {}, "T2"),
        # Of the workspace's own enterprise.
        ({"team": "E1"}, {}, "T1"),
        # Nobody knows whose it is.
        ({}, {"is_ext_shared_channel": True}, None),
    ],
)
def test_who_writes_in_a_shared_channel_is_of_their_own_workspace(
    of_event: dict[str, Any], of_payload: dict[str, Any], home: str | None
) -> None:
    event = fake.message_event("hi", user="U1", channel="C1", ts="1.0", event_id="E", **of_event)
    event["authorizations"][0]["enterprise_id"] = "E1"
    message = message_of({**event, **of_payload}, "T1")
    if home is None:
        assert message is None
    else:
        assert message is not None
        assert (message.user.subject, message.thread.team_id, message.is_addressed) == (f"{home}/U1", "T1", False)


def test_who_presses_in_a_shared_channel_is_of_their_own_workspace() -> None:
    card = fake.SlackMessage("C1", "2.0", "1.0", "", [], {})
    pressed = fake.button_press(card, "holdfast_approve", "U1", "conf_1 d")
    for team in ("T1", "T2"):
        by = press_of({**pressed, "user": {"id": "U1", "team_id": team}}, "T1")
        assert by is not None
        assert (by.user.subject, by.place) == (f"{team}/U1", SlackPlace("C1", "1.0"))


def test_a_card_says_all_that_a_decision_hangs_on() -> None:
    text, blocks = slack_cards.card(ASKED)
    shown = "\n".join(str(block) for block in blocks)
    assert text == "`support` wants to call `refund_order`."
    for part in ('"order": 7', "`refund_order: confirm`", "<!date^1767323045^", "2026-01-02T03:04:05+00:00", "billing"):
        assert part in shown
    assert "then it is rejected" in shown
    texts = [text for block in blocks for text in (block.get("text"), *block.get("elements", [])) if text]
    assert all(text["verbatim"] for text in texts if text["type"] == "mrkdwn"), "Slack is to make no links"
    assert "By somebody else than who asked" in shown
    assert "`refund_order`, until <!date^1767323045^" in slack_cards.reminder(ASKED)
    buttons = blocks[-1]["elements"]
    assert {slack_cards.read_bound(button["value"]) for button in buttons} == {("conf_1", "d" * 64)}


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"status": ConfirmationStatus.EXPIRED}, "Nobody decided in time"),
        ({"status": ConfirmationStatus.WITHDRAWN}, "Not asked any more"),
        ({"status": ConfirmationStatus.APPROVED, "decision": Decision.APPROVE}, "Approved by `bob` (via `api`)"),
        (
            {"status": ConfirmationStatus.APPROVED, "decision": Decision.EDIT, "edited_arguments": {"order": 8}},
            "with other arguments by",
        ),
        ({"status": ConfirmationStatus.REJECTED, "decision": Decision.RESPOND}, "Answered in the tool's place"),
        ({"status": ConfirmationStatus.REJECTED, "decision": Decision.REJECT, "reason": "`no`\n*x*"}, ": `'no' *x*`"),
    ],
)
def test_a_card_of_what_is_not_asked_any_more_has_no_buttons(ended: dict[str, Any], said: str) -> None:
    text, blocks = slack_cards.card(replace(ASKED, decided_by="bob", decided_via="api", **ended))
    assert said in text
    assert [block["type"] for block in blocks] == ["section", "section", "context"]
    assert ('"order": 8' in str(blocks)) == ("edited_arguments" in ended)


def test_arguments_mean_what_they_look_like() -> None:
    arguments = {"a": "```*x*``` \u202egpj.exe\u2066 <!here> \x07 \u00e9 \U000e0041 \n"}
    shown = slack_cards.as_json(arguments)
    assert json.loads(shown) == arguments
    assert not {"`", "\u202e", "\u2066", "\U000e0041", "\x07"} & set(shown)
    assert "é" in shown


@pytest.mark.parametrize(
    ("length", "buttons"),
    [
        (10, {slack_cards.APPROVE, slack_cards.REJECT}),
        (3_000, {slack_cards.REVIEW, slack_cards.REJECT}),
        (100_000, {slack_cards.REJECT}),
    ],
)
def test_nobody_can_approve_what_is_not_shown_whole(length: int, buttons: set[str]) -> None:
    asked = replace(ASKED, arguments={"text": "&" * length})
    _, blocks = slack_cards.card(asked)
    assert {button["action_id"] for button in blocks[-1]["elements"]} == buttons
    assert all(len(block["text"]["text"]) <= 3_000 for block in blocks if block["type"] == "section")
    view = slack_cards.review_modal(asked) if length < 10_000 else None
    assert view is None or str(view).count("&amp;") == length
