"""Slack: a message is accepted once and answered once; a decision there is as good as any other, and no better."""

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from api.slack_door import SlackDoor
from holdfast.channels.channel import Permanent, Retryable
from holdfast.channels.slack import SlackChannel
from holdfast.channels.slack_client import SlackClient
from holdfast.dev.ports import free_port
from holdfast.domain.deliveries import Delivery
from holdfast.domain.errors import Unavailable
from holdfast.domain.slack import SlackApp, Workspace
from holdfast.services.principals import Principals
from holdfast.services.slack_decisions import SlackDecisions
from holdfast.services.slack_messages import SlackMessages
from holdfast.store import slack_posts
from holdfast.store.engine import Database, create_engine
from holdfast.temporal.client import connect
from holdfast.testing import slack as fake
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from holdfast.testing.slack import DiesAfterwards, Fails, FakeSlack, Holds, RateLimited, Refused, SlackMessage
from tests.agents.tools import effects
from tests.harness import slack as harness
from tests.harness.conditions import until
from tests.harness.servers import APP_ROLE, Servers
from tests.harness.slack import TENANT, Place, mention, new_ts, person
from tests.harness.stage import Stage, owning, playing, serving_api

RUNS = """
SELECT r.run_id, r.conversation_id, r.requested_by, m.text FROM slack_threads t
JOIN runs r ON r.conversation_id = t.conversation_id JOIN messages m ON m.run_id = r.run_id
WHERE t.channel_id = $1 AND m.role = 'user' ORDER BY r.run_id
"""


@pytest.fixture(scope="module")
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        yield slack


@pytest.fixture(scope="module")
async def module_stage(
    running_servers: Servers, session_provider: ScriptedProvider, slack: FakeSlack
) -> AsyncIterator[Stage]:
    """The whole application, in a workspace of Slack."""
    settings = harness.settings(slack, agent="guarded")
    # Another process may have stolen some of these tests.
    async with playing(running_servers, session_provider, f"slack-{uuid.uuid4().hex[:12]}", slack=settings) as stage:
        yield stage


@pytest.fixture
async def stage(module_stage: Stage, provider: ScriptedProvider) -> AsyncIterator[Stage]:
    yield module_stage
    await module_stage.dismiss_callers()


@pytest.fixture
async def place(stage: Stage, slack: FakeSlack, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """A channel that only this test uses."""
    place = Place(stage.url, slack, f"C{abs(hash(request.node.name))}")
    yield place
    await place.http.aclose()


async def runs(stage: Stage, place: Place) -> list[asyncpg.Record]:
    return await stage.rows(RUNS, place.channel)


async def test_what_slack_says_again_and_again_is_answered_once(stage: Stage, place: Place) -> None:
    """Redelivered, as two kinds of event, at once; and Slack keeps the reply, but dies before it says so."""
    ada = await person(stage, "ada", "client")
    root = new_ts()
    place.script("chat.postMessage", DiesAfterwards())
    both = [
        place.message(mention("hi &amp; &lt;bye&gt;"), ada, ts=root, kind=kind) for kind in ("app_mention", "message")
    ]
    answers = await asyncio.gather(*(place.event(payload) for payload in both * 3))
    assert {answer.status_code for answer in answers} == {200}

    (posted,) = await place.posted(root)
    (run,) = await runs(stage, place)
    assert (run["text"], run["requested_by"]) == ("hi & <bye>", "ada")
    assert posted.text == "You said: hi &amp; &lt;bye&gt;"
    assert posted.metadata["event_payload"]["key"]
    # In the thread, nobody needs to name the app again; elsewhere they must.
    await place.event(place.message("and now?", ada, thread_ts=root))
    await place.event(place.message("to each other", ada))
    assert [one.text for one in await place.posted(root, 2)] == [posted.text, "You said: and now?"]
    first, second = await runs(stage, place)
    assert first["conversation_id"] == second["conversation_id"]
    settled = "SELECT count(*) FROM deliveries WHERE run_id = ANY($1) AND status = 'delivered'"
    ids = [first["run_id"], second["run_id"]]
    await until_is(stage, settled, 2, ids)
    assert len(place.slack.in_thread(place.channel, root)) == 2


async def until_is(stage: Stage, query: str, value: object, *values: object) -> None:
    async def is_so() -> bool:
        return bool((await stage.rows(query, *values))[0][0] == value)

    await until(is_so)


async def test_messages_of_a_thread_that_race_or_overtake_each_other_are_one_conversation(
    stage: Stage, slack: FakeSlack
) -> None:
    ada = await person(stage, "ada", "client")
    direct = Place(stage.url, slack, "D-race")
    root = new_ts()
    later = [direct.message(f"{number}", ada, thread_ts=root) for number in range(4)]
    first = direct.message("the first, sent again a minute later", ada, ts=root)
    answers = await asyncio.gather(*(direct.event(payload) for payload in [*later, first]))
    await direct.http.aclose()

    assert {answer.status_code for answer in answers} == {200}
    found = await runs(stage, direct)
    assert (len(found), len({run["conversation_id"] for run in found})) == (5, 1)
    posted = await direct.posted(root, 5)
    assert sorted(message.text for message in posted) == sorted(f"You said: {run['text']}" for run in found)


@pytest.mark.parametrize("wrong", ["no signature", "another secret", "another body", "too old", "no number", "odd"])
async def test_what_slack_has_not_signed_is_refused(stage: Stage, place: Place, wrong: str) -> None:
    ada = await person(stage, "ada", "client")
    body = b'{"type": "url_verification", "challenge": "c"}'
    headers = {
        "no signature": {"x-slack-signature": ""},
        "another secret": fake.signed("another secret", body),
        "another body": fake.signed(harness.SECRET, body + b" "),
        "too old": fake.signed(harness.SECRET, body, at=time.time() - 301),
        "no number": {"x-slack-request-timestamp": "soon"},
        "odd": {"x-slack-signature": "v0"},
    }[wrong]
    for path in ("/slack/events", "/slack/interactions"):
        assert (await place.raw(path, body, **headers)).status_code == 401
    assert (await place.raw("/slack/events", body)).json() == {"challenge": "c"}
    for odd in (b"[1]", b"[" * 100_000, b'{"authorizations": {"a": 1}}', b'{"authorizations": [1]}'):
        assert (await place.raw("/slack/events", odd, **{"content-type": "application/json"})).status_code == 422
    assert (await place.event({"type": "app_rate_limited", "team_id": fake.TEAM})).status_code == 200
    payload = place.message(mention("hello"), ada, kind="app_mention")
    assert (await place.event({**payload, "team_id": "T2", "authorizations": []})).status_code == 200
    assert await runs(stage, place) == []


async def test_only_people_who_are_linked_with_a_role_are_listened_to(stage: Stage, place: Place) -> None:
    ada, roleless = await person(stage, "ada", "client"), await person(stage, "bob")
    stranger = "U-STRANGER"
    for kind in ("app_mention", "message"):
        for user in (stranger, roleless):
            await place.event(place.message(mention("hello"), user, kind=kind))
    told = [await place.said(stranger), await place.said(roleless)]
    assert f"holdfast identities link slack {fake.TEAM}/{stranger}" in told[0]
    assert "messages.send" in told[1]
    # Nobody answers a bot, the app itself, or what is no new message.
    for others in (
        {"bot_id": "B1"},
        {"subtype": "bot_message", "bot_id": "B2"},
        {"subtype": "message_changed"},
        {"subtype": "message_deleted"},
        {"subtype": "channel_join"},
        {"edited": {"user": ada}},
    ):
        assert (await place.event(place.message(mention("hello"), ada, **others))).status_code == 200
    # A file, and not a word: who sent it is told, and not twice.
    for kind in ("app_mention", "message"):
        await place.event(place.message(mention(""), ada, kind=kind, subtype="file_share", files=[{"id": "F1"}]))
    await place.event(place.message(mention(""), ada, kind="app_mention"))
    assert "can't read files" in await place.said(ada)
    own = await place.event(place.message(mention("hello"), fake.APP_USER))
    reaction = await place.event({**place.message("", ada), "event": {"type": "reaction_added", "user": ada}})
    assert (own.status_code, reaction.status_code, await runs(stage, place)) == (200, 200, [])


async def ask(place: Place, stage: Stage, user: str, **arguments: Any) -> tuple[str, SlackMessage]:
    """Have somebody ask for something that must be confirmed; answers with the thread, and the card in it."""
    stage.provider.script(ToolCalls([("pay", arguments)]))
    root = new_ts()
    await place.event(place.message(mention("pay"), user, ts=root, kind="app_mention"))
    (card,) = await place.posted(root)
    return root, card


async def changed(place: Place, card: SlackMessage) -> SlackMessage:
    """A card when it says something else."""

    def now() -> SlackMessage:
        return next(one for one in place.messages() if one.ts == card.ts)

    await until(lambda: now().edits > 0)
    return now()


async def test_a_button_decides_for_whoever_may_and_for_nobody_else(stage: Stage, place: Place) -> None:
    """Policy: somebody of billing, and not who asked."""
    ada = await person(stage, "ada", "client", "approver", "billing")
    eve = await person(stage, "eve", "client", "approver")
    carl = await person(stage, "carl", "client", "billing")
    dora = await person(stage, "dora", "approver", "billing")
    marker = "<!channel> `*a*` \u202e"
    root, card = await ask(place, stage, ada, marker=marker, amount=7)
    value = card.buttons["holdfast_approve"]
    shown = str(card.blocks)
    assert "<!channel>" not in shown
    assert "&lt;!channel&gt; \\\\u0060*a*\\\\u0060 \\\\u202e" in shown
    assert "billing" in shown

    for user, refusal in (
        (ada, "your own request"),
        (eve, "billing"),
        (carl, "confirmations.decide"),
        ("U-NOBODY", "identities link"),
    ):
        assert (await place.press(card, "holdfast_approve", user)).status_code == 200
        assert refusal in await place.said(user)
    await place.press(card, "holdfast_approve", dora, value=f"{value.split()[0]} {'0' * 64}")
    assert "digest" in await place.said(dora)
    assert effects("pay", marker) == []

    assert (await place.press(card, "holdfast_approve", dora)).status_code == 200
    reply = (await place.posted(root, 2))[1]
    closed = await changed(place, card)
    assert (closed.buttons, "Approved by `dora` (via `slack`)" in closed.text) == ({}, True)
    assert (reply.buttons, len(effects("pay", marker))) == ({}, 1)
    refused = "SELECT outcome FROM audit WHERE kind = 'refusal' AND via = 'slack' AND subject_id = $1 ORDER BY audit_id"
    recorded = [row[0] for row in await stage.rows(refused, value.split()[0])]
    assert recorded == ["forbidden"] * 3 + ["digest_mismatch"]


async def test_a_yes_decides_nothing_that_was_asked_after_it_was_said(stage: Stage, place: Place) -> None:
    """Slack sends again, for hours, what it could not tell at once."""
    ada, dora = await person(stage, "ada", "client"), await person(stage, "dora", "client", "approver", "billing")
    place.script("chat.postMessage", Holds())
    stage.provider.script(ToolCalls([("pay", {"marker": "said yes", "amount": 7})]))
    root = new_ts()
    await place.event(place.message(mention("pay"), ada, ts=root, kind="app_mention"))
    await until(lambda: place.calls("chat.postMessage") == 1)
    status = "SELECT status FROM confirmations WHERE run_id = $1"
    (run,) = await runs(stage, place)
    # Asked, and not shown yet.
    unseen = f"{time.time():.6f}"
    place.slack.release()
    (card,) = await place.posted(root)
    await until_is(stage, "SELECT count(*) FROM slack_posts WHERE ts = $1", 1, card.ts)
    assert (await place.event(place.message("yes", dora, ts=unseen, thread_ts=root))).status_code == 200
    assert [row["status"] for row in await stage.rows(status, run["run_id"])] == ["pending"]

    after = f"{int(time.time()) + 60}.000001"
    assert (await place.event(place.message("yes", dora, ts=after, thread_ts=root))).status_code == 200
    await until_is(stage, status, "approved", run["run_id"])
    assert "Approved by `dora` (via `chat`)" in (await changed(place, card)).text
    await place.posted(root, 3)


async def test_a_call_is_rejected_with_a_reason_and_only_once(stage: Stage, place: Place) -> None:
    ada, dora = await person(stage, "ada", "client"), await person(stage, "dora", "approver", "billing")
    eve = await person(stage, "eve", "client")
    _, card = await ask(place, stage, ada, marker="rejected", amount=7)
    await place.press(card, "holdfast_reject", dora)
    await until(lambda: bool(place.slack.views))
    view = place.slack.views.pop()["view"]

    refusal = (await place.send(view, eve, "not mine")).json()
    assert (refusal["response_action"], "confirmations.decide" in str(refusal["view"])) == ("update", True)
    assert (await place.send(view, dora, "<too> much")).content == b""
    closed = await changed(place, card)
    assert (closed.buttons, ":no_entry: Rejected by `dora`" in closed.text) == ({}, True)
    assert "`&lt;too&gt; much`" in closed.text
    # The button of a screen that was not yet redrawn.
    await place.press(card, "holdfast_approve", dora)
    assert "was rejected by dora" in await place.said(dora)
    assert effects("pay", "rejected") == []


async def test_what_is_too_long_for_a_card_is_approved_where_all_of_it_is_shown(stage: Stage, place: Place) -> None:
    ada, dora = await person(stage, "ada", "client"), await person(stage, "dora", "approver", "billing")
    talker = await person(stage, "dora", "client", "approver", "billing")
    marker = "long" + "&" * 5_000 + "end"
    root, card = await ask(place, stage, ada, marker=marker, amount=7)
    assert (set(card.buttons), "end" in str(card.blocks)) == ({"holdfast_review", "holdfast_reject"}, False)
    assert re.search(r"first 5\d\d of 50\d\d characters", str(card.blocks))

    await place.press(card, "holdfast_review", ada)
    assert "confirmations.decide" in await place.said(ada)
    await place.press(card, "holdfast_review", dora)
    await until(lambda: bool(place.slack.views))
    view = place.slack.views.pop()["view"]
    # Nor is it by a word in the thread, to what is shown there; who says it is told so.
    after = f"{int(time.time()) + 60}.000001"
    assert (await place.event(place.message("yes", talker, ts=after, thread_ts=root))).status_code == 200
    assert "only a part" in await place.said(talker)
    assert effects("pay", marker) == []
    shown = "".join(block["text"]["text"] for block in view["blocks"][1:-1])
    assert (shown.count("&amp;"), "end" in shown) == (5_000, True)
    assert max(len(block["text"]["text"]) for block in view["blocks"][:-1]) <= 3_000
    assert (await place.send(view, dora)).content == b""
    assert len(await place.posted(root, 2)) == 2


async def test_a_card_says_what_was_decided_elsewhere_or_not_at_all(stage: Stage, place: Place) -> None:
    ada = await person(stage, "ada", "client")
    dora = await stage.caller(TENANT, person="dora", roles=["billing"])
    place.script("chat.postMessage", RateLimited(0))
    place.script("chat.update", Fails(502), RateLimited(0))
    cards = [(await ask(place, stage, ada, marker=f"elsewhere {number}", amount=1))[1] for number in range(2)]
    decided, expiring = (card.buttons["holdfast_approve"].split()[0] for card in cards)
    found = await dora.get(f"/v1/confirmations/{decided}")
    assert (await dora.decide(found, reason="fine")).status_code == 200
    await stage.rows("UPDATE confirmations SET deadline = clock_timestamp() WHERE confirmation_id = $1", expiring)
    late = await dora.decide(await dora.get(f"/v1/confirmations/{expiring}"))
    assert late.status_code == 409

    first, second = [await changed(place, card) for card in cards]
    assert (first.buttons, second.buttons) == ({}, {})
    assert "Approved by `dora` (via `api`): `fine`" in first.text
    assert "Nobody decided in time" in second.text


async def test_a_card_that_is_overtaken_by_its_decision_shows_the_decision(stage: Stage, place: Place) -> None:
    ada = await person(stage, "ada", "client")
    dora = await stage.caller(TENANT, person="dora", roles=["billing"])
    stage.provider.script(ToolCalls([("pay", {"marker": "overtaken", "amount": 1})]))
    place.script("chat.postMessage", Holds())
    root = new_ts()
    posts = place.calls("chat.postMessage")
    await place.event(place.message(mention("pay"), ada, ts=root, kind="app_mention"))
    await until(lambda: place.calls("chat.postMessage") > posts)
    (run,) = await runs(stage, place)
    found = await dora.confirmation_of(run["run_id"])
    assert (await dora.decide(found, "reject")).status_code == 200
    told = "SELECT count(*) FROM deliveries WHERE run_id = $1 AND type = 'confirmation.decided' AND attempts > 0"
    await until_is(stage, told, 1, run["run_id"])
    place.slack.release()

    (first, *_) = await place.posted(root)
    closed = await changed(place, first)
    assert (closed.buttons, "Rejected by `dora`" in closed.text) == ({}, True)


@pytest.fixture
async def delivery(stage: Stage, place: Place) -> Delivery:
    """What tells a thread of a reply, which was told before."""
    ada = await person(stage, "ada", "client")
    root = new_ts()
    await place.event(place.message(mention("hello"), ada, ts=root, kind="app_mention"))
    await place.posted(root)
    (run,) = await runs(stage, place)
    done = "SELECT count(*) FROM deliveries WHERE run_id = $1 AND status = 'delivered'"
    await until_is(stage, done, 1, run["run_id"])
    place.slack.forget(place.channel)
    now = datetime.now(UTC)
    return Delivery(
        TENANT, "dlv_1", "slack", "t", run["run_id"], run["conversation_id"], "a", 1, "run.completed", {}, now
    )


async def test_a_post_is_made_again_only_when_it_is_known_not_to_have_arrived(
    stage: Stage, place: Place, delivery: Delivery
) -> None:
    def channel(on_its_way_s: float) -> SlackChannel:
        workspace = Workspace(fake.TEAM, TENANT, "xoxb-1")
        client = partial(SlackClient, api_url=place.slack.url)
        return SlackChannel(stage.database, {fake.TEAM: workspace}, client, on_its_way_s)

    async def forget(attempted: str) -> None:
        forgotten = f"SET ts = NULL, attempted_at = {attempted}, delivery_id = ''"
        await stage.rows(f"UPDATE slack_posts {forgotten} WHERE subject_id = $1", delivery.run_id)

    await channel(0).deliver(delivery)
    assert place.messages() == []
    await forget("clock_timestamp()")
    with pytest.raises(Retryable, match="may still arrive"):
        await channel(60).deliver(delivery)
    place.script("chat.postMessage", Refused("is_archived"))
    with pytest.raises(Permanent, match="is_archived"):
        await channel(0).deliver(delivery)
    # Refused is not posted: nobody waits, or looks for it.
    looked = place.calls("conversations.replies")
    # That of a channel that the app was removed from; a private one is not found then.
    for code in ("not_in_channel", "channel_not_found"):
        place.script("chat.postMessage", Refused(code))
        with pytest.raises(Retryable, match=code):
            await channel(60).deliver(delivery)
    assert place.calls("conversations.replies") == looked
    place.script("chat.postMessage", RateLimited(7))
    with pytest.raises(Retryable, match="too many calls") as asked_to_wait:
        await channel(60).deliver(delivery)
    assert asked_to_wait.value.retry_after == timedelta(seconds=7)
    place.script("chat.postMessage", DiesAfterwards())
    with pytest.raises(Retryable, match="not answered"):
        await channel(60).deliver(delivery)
    # As long as Slack does not let us look, nobody knows.
    for code in ("missing_scope", "not_allowed_token_type", "what nobody foresaw"):
        place.script("conversations.replies", Refused(code))
        with pytest.raises(Retryable, match=code):
            await channel(0).deliver(delivery)
    await channel(60).deliver(delivery)
    assert len(place.messages()) == 1

    other = SlackChannel(stage.database, {fake.TEAM: Workspace(fake.TEAM, "another", "xoxb-1")}, SlackClient)
    with pytest.raises(Retryable, match="no token"):
        await other.deliver(delivery)


async def test_of_two_workers_that_take_a_post_for_their_own_one_posts_it(stage: Stage) -> None:
    """One was taken for dead, and its delivery was handed to another; it was slow."""
    own = slack_posts.Claim(TENANT, "run_of_two", "dlv_1")
    async with stage.database.tenant(TENANT) as connection:
        slow, other = [await slack_posts.claim(connection, own, timedelta(minutes=1)) for _ in range(2)]
        assert slow is not None
        assert other is not None
        attempts = [await slack_posts.attempt(connection, own, post) for post in (other, slow, other)]
        assert attempts == [True, False, False]
        await slack_posts.refused(connection, own)
        assert await slack_posts.attempt(connection, own, slow)


async def test_slack_is_answered_in_time_while_temporal_is_away(
    running_servers: Servers, slack: FakeSlack, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "slack-alone"
    await running_servers.create_database(name)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{free_port()}")
    url, owner_url = running_servers.database_url(name, APP_ROLE), running_servers.database_url(name)
    async with serving_api(url, name, **harness.settings(slack)) as api_url, owning(owner_url) as owners:
        database = Database(create_engine(url, pool_size=2))
        temporal = await connect(lazy=True)
        stage = Stage(api_url, database, url, owner_url, temporal, name, provider, owners=owners)
        ada, place = await person(stage, "ada", "client"), Place(api_url, slack, "C-alone")
        payload = place.message(mention("hello"), ada, kind="app_mention")
        # The door closes after 2.5 seconds: what is answered 200, was answered in time.
        answers = [await place.event(payload, **{"x-slack-retry-num": str(number)}) for number in range(2)]
        assert ([answer.status_code for answer in answers], len(await runs(stage, place))) == ([200, 200], 1)
        await place.http.aclose()
        for caller in stage.callers:
            await caller.http.aclose()
        await database.close()


async def test_slack_is_to_come_again_while_the_database_is_away() -> None:
    database = Database(create_engine(f"postgresql+asyncpg://u@127.0.0.1:{free_port()}/d", pool_size=1))
    notices: Any = None
    principals = Principals(database, lambda: None)
    secrets = {fake.TEAM: harness.SECRET, "T2": "another app's secret"}
    door = SlackDoor(
        [SlackApp(Workspace(team, f"of-{team.lower()}", "xoxb-1"), "support", secrets[team]) for team in secrets],
        SlackMessages(database, notices, principals, notices),
        SlackDecisions(database, notices, principals, notices),
    )
    event = fake.message_event(mention("hello"), user="U1", channel="D1", ts=new_ts(), event_id="Ev")
    body = json.dumps(event).encode()
    with pytest.raises(Unavailable):
        await door.dispatch(fake.signed(harness.SECRET, body), body)
    # Of a workspace of another app: nobody is asked anything.
    assert (await door.dispatch(fake.signed(secrets["T2"], body), body)).status == 200
    await database.close()
