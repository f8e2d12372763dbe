"""Webhooks over real HTTP: told, told again, signed, replayed, and never where they may not go."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook as Verifying
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.delivery import DeliveryActivities, Room
from holdfast.channels.channel import Retryable
from holdfast.channels.receivers import Receivers
from holdfast.channels.webhook import WebhookChannel
from holdfast.domain.deliveries import DELIVERABLE, Backoff, Delivery
from holdfast.domain.hosts import read_entry
from holdfast.domain.steps import DeliveryOutcome, DeliveryRef
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from holdfast.tools.http_exchange import Exchanger
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import KEYRING, Stage
from tests.integration.test_cli import said
from tests.integration.test_erasure import columns_with
from tests.unit.http_servers import Answer, Internet, Server, death, endless, http, moved, serving

GONE = http(410)
TAKEN = http(204)


async def new_webhook(caller: Caller, url: str, *events: str) -> Json:
    response = await caller.http.post("/v1/webhooks", json={"url": url, "events": events})
    assert response.status_code == 201, response.text
    made: Json = response.json()
    return made


async def told(caller: Caller, webhook: Json, status: str, count: int) -> list[Json]:
    """The deliveries of a webhook that stand so, as soon as there are so many."""
    found: list[Json] = []

    async def are_there() -> bool:
        found[:] = (await caller.get(f"/v1/webhooks/{webhook['id']}/deliveries", status=status))["data"]
        return len(found) >= count

    await until(are_there)
    assert len(found) == count
    return found


async def words(stage: Stage, caller: Caller) -> int:
    return len(await stage.rows("SELECT FROM outbox WHERE tenant_id = $1", caller.tenant_id))


def verified(server: Server, secret: str) -> list[Json]:
    """What came, if all of it is signed with the secret."""
    return [Verifying(secret).verify(request.body, request.headers) for request in server.requests]


def hanging(over: asyncio.Event) -> Answer:
    """Say nothing, until it is over."""

    async def answer(_: asyncio.StreamWriter) -> None:
        await over.wait()

    return answer


def ids(server: Server) -> list[str]:
    return [request.headers["webhook-id"] for request in server.requests]


async def test_what_happens_is_told_signed_and_again_under_the_same_id_until_it_is_taken(
    ada: Caller, stage: Stage
) -> None:
    async with serving(http(500), death, TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url + "/hook?a=b", "run.completed")
        run = await ada.ask("hello")
        (delivery,) = await told(ada, webhook, "delivered", 1)

        assert receiver.lines == ["POST /hook?a=b HTTP/1.1"] * 3
        assert ids(receiver) == [delivery["id"]] * 3
        bodies = verified(receiver, webhook["secret"])
    assert bodies == [bodies[0]] * 3
    assert bodies[0]["type"] == "run.completed"
    logged = await stage.rows("SELECT seq, data FROM events WHERE run_id = $1 AND type = 'run.completed'", run["id"])
    assert bodies[0]["data"] == {
        "run_id": run["id"],
        "conversation_id": run["conversation_id"],
        "agent": "support",
        "seq": logged[0]["seq"],
        "degraded": False,
        "reply_id": json.loads(logged[0]["data"])["reply_id"],
    }
    expected = {"attempts": 3, "replays": 0, "last_error": None, "next_attempt_at": None, "run_id": run["id"]}
    assert {name: delivery[name] for name in expected} == expected
    assert await words(stage, ada) == 0


async def test_every_type_is_told_once_and_no_content_with_it(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    canary = f"canary-{ada.tenant_id}"
    async with serving(TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url)
        assert webhook["events"] == list(DELIVERABLE)
        provider.script(ToolCalls([("pay", {"marker": canary, "amount": 1})], text=canary), Text(canary))
        run = await ada.ask(canary)
        await ada.decide(await ada.only_pending(run), "approve", reason=canary)
        await ada.ended(run["id"])
        told_of = await told(ada, webhook, "delivered", 5)

        assert sorted(one["type"] for one in told_of) == sorted(
            ("run.queued", "run.started", "confirmation.requested", "confirmation.decided", "run.completed")
        )
        assert sorted(ids(receiver)) == sorted(one["id"] for one in told_of)
        assert not any(canary in request.body.decode() for request in receiver.requests)


async def test_a_receiver_that_is_gone_is_not_told_again_until_it_is_enabled_and_what_it_missed_is_replayed(
    ada: Caller, stage: Stage
) -> None:
    async with serving(GONE, TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url, "run.completed")
        await ada.ask("hello")
        (missed,) = await told(ada, webhook, "failed", 1)
        assert missed["last_error"] == "the receiver answered 410, and the webhook is disabled"
        path = f"/v1/webhooks/{webhook['id']}"
        assert (await ada.get(path))["disabled_why"] == "its receiver answered 410 Gone"
        await ada.ask("nobody is told of this")
        replay = f"{path}/deliveries/{missed['id']}/replay"
        assert (await ada.http.post(replay)).status_code == 409

        terms = {"url": receiver.url, "events": ["run.completed"], "enabled": True}
        assert (await ada.http.put(path, json=terms)).json()["disabled_why"] is None
        assert (await ada.http.post(replay)).json()["status"] == "pending"
        (delivered,) = await told(ada, webhook, "delivered", 1)
        assert (delivered["id"], delivered["replays"], delivered["attempts"]) == (missed["id"], 1, 1)
        # Also one that was delivered may be told again: a receiver that has lost it knows it by its id.
        assert (await ada.http.post(replay)).status_code == 200
        await until(lambda: len(receiver.requests) == 3)
        assert ids(receiver) == [missed["id"]] * 3
        await told(ada, webhook, "delivered", 1)
    entries = (await ada.get("/v1/audit", kind="webhook"))["data"]
    assert sorted(one["outcome"] for one in entries) == ["changed", "created", "disabled", "replayed", "replayed"]
    assert {one["person"] for one in entries} == {"ada", None}
    await until(lambda: nothing_is_left(stage, ada))


async def test_a_delivery_outlives_its_workflow(ada: Caller, stage: Stage) -> None:
    """Terminated from outside as it waits, as long as the receiver has asked for, another takes its place."""
    async with serving(http(503, retry_after="3600"), TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url, "run.completed")
        await ada.ask("hello")
        waiting: list[Json] = []

        async def is_waiting() -> bool:
            waiting[:] = await told(ada, webhook, "pending", 1)
            return waiting[0]["last_error"] is not None

        await until(is_waiting)
        (delivery,) = waiting
        assert (delivery["last_error"], delivery["attempts"]) == ("the receiver answered 503", 1)
        assert datetime.fromisoformat(delivery["next_attempt_at"]) > datetime.now(UTC) + timedelta(minutes=50)

        workflow = f"{ada.tenant_id}:webhook:{delivery['id']}"
        await stage.temporal.get_workflow_handle(workflow).terminate("a test")
        await stage.rows("UPDATE outbox SET due_at = now() WHERE tenant_id = $1", ada.tenant_id)
        await told(ada, webhook, "delivered", 1)
        assert ids(receiver) == [delivery["id"]] * 2
        await until(lambda: nothing_is_left(stage, ada))


async def nothing_is_left(stage: Stage, caller: Caller) -> bool:
    return await words(stage, caller) == 0


async def test_both_secrets_sign_after_a_rotation_and_are_shown_nowhere_again(ada: Caller, stage: Stage) -> None:
    async with serving(TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url, "run.completed")
        path = f"/v1/webhooks/{webhook['id']}"
        rotated = (await ada.http.post(f"{path}/rotation", json={"grace_period": "1h"})).json()
        await ada.ask("hello")
        (delivery,) = await told(ada, webhook, "delivered", 1)
        assert rotated["secret"] != webhook["secret"]
        assert verified(receiver, rotated["secret"]) == verified(receiver, webhook["secret"])

        again = (await ada.http.post(f"{path}/rotation", json={"grace_period": "0s"})).json()
        receiver.requests.clear()
        await ada.ask("hello again")
        await told(ada, webhook, "delivered", 2)
        assert len(verified(receiver, again["secret"])) == 1
        assert len(receiver.requests[0].headers["webhook-signature"].split()) == 1
    history = await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:webhook:{delivery['id']}").fetch_history()
    shown = json.dumps([await ada.get(path), await ada.get("/v1/webhooks"), history.to_json()])
    assert "whsec_" not in shown
    for secret in (webhook["secret"], rotated["secret"], again["secret"]):
        assert await columns_with(stage, secret.removeprefix("whsec_")) == set()


async def test_a_receiver_that_hangs_holds_up_nobody_else_and_one_that_is_deleted_is_left_alone(
    ada: Caller, stage: Stage
) -> None:
    bob = await stage.caller(f"{ada.tenant_id}-other", "bob")
    over = asyncio.Event()
    async with serving(hanging(over)) as hung_up, serving(TAKEN) as receiver:
        hung = await new_webhook(ada, hung_up.url)
        webhook = await new_webhook(bob, receiver.url, "run.completed")
        await asyncio.gather(*(ada.ask(f"message {number}") for number in range(3)))
        await bob.ask("hello")
        await told(bob, webhook, "delivered", 1)
        assert len(await told(ada, hung, "pending", 9)) == 9

        for method, path in (
            ("GET", f"/v1/webhooks/{hung['id']}"),
            ("GET", f"/v1/webhooks/{hung['id']}/deliveries"),
            ("POST", f"/v1/webhooks/{hung['id']}/rotation"),
            ("DELETE", f"/v1/webhooks/{hung['id']}"),
        ):
            response = await bob.http.request(method, path, json={} if method == "POST" else None)
            assert response.status_code == 404
        assert (await ada.http.delete(f"/v1/webhooks/{hung['id']}")).status_code == 204
        assert await stage.rows("SELECT FROM deliveries WHERE tenant_id = $1", ada.tenant_id) == []
        over.set()
        await until(lambda: nothing_is_left(stage, ada))


async def test_what_finds_no_room_comes_back_later(stage: Stage) -> None:
    room = Room(TenantSlots(1), TenantSlots(1))
    activities = DeliveryActivities(stage.database, {}, lambda _: Backoff(), room)
    ref = DeliveryRef("acme", "dlv_1", "acme:webhook:dlv_1")
    async with room.one(ref):
        with pytest.raises(ApplicationError) as raised:
            await ActivityEnvironment().run(activities.deliver, ref)
    assert raised.value.next_retry_delay is not None
    assert raised.value.next_retry_delay >= timedelta(seconds=5)
    assert await ActivityEnvironment().run(activities.deliver, ref) == DeliveryOutcome(None)


async def test_a_stopped_tenants_deliveries_wait_and_have_all_their_time_after(ada: Caller, stage: Stage) -> None:
    async with serving(http(500), TAKEN) as receiver:
        webhook = await new_webhook(ada, receiver.url, "run.merged")
        await ada.http.put("/v1/switches/tenant", json={"reason": "a test"})
        await stage.rows(
            "WITH c AS (INSERT INTO conversations (tenant_id, conversation_id, last_position) VALUES ($1, 'c', 1)),"
            " r AS (INSERT INTO runs (tenant_id, run_id, conversation_id, message_id, agent, agent_version, position,"
            " requested_by, status) VALUES ($1, 'run_1', 'c', 'm', 'support', 1, 1, 'ada', 'merged'))"
            " INSERT INTO events (tenant_id, run_id, seq, type, data) VALUES ($1, 'run_1', 1, 'run.merged', '{}')",
            ada.tenant_id,
        )

        async def waits() -> bool:
            return [one["last_error"] for one in await told(ada, webhook, "pending", 1)] == ["a kill switch is thrown"]

        await until(waits)
        assert receiver.requests == []
        (waiting,) = await told(ada, webhook, "pending", 1)
        assert waiting["attempts"] == 0
        of_webhook = "FROM deliveries WHERE target_id = $1"
        (held,) = await stage.rows(f"SELECT pending_since > created_at AS is_later {of_webhook}", webhook["id"])
        assert held["is_later"]
        # And if nobody was there to try for days.
        since = "UPDATE deliveries SET pending_since = now() - interval '9 days' WHERE target_id = $1"
        await stage.rows(since, webhook["id"])
        await ada.http.delete("/v1/switches/tenant")
        # Sooner than by itself.
        await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:webhook:{waiting['id']}").terminate("a test")
        await stage.rows("UPDATE outbox SET due_at = now() WHERE tenant_id = $1", ada.tenant_id)
        (delivered,) = await told(ada, webhook, "delivered", 1)
        assert (delivered["attempts"], len(receiver.requests)) == (2, 2)


async def test_what_is_no_address_for_webhooks_is_refused(ada: Caller) -> None:
    for url in ("http://example.com/", "https://10.0.0.1/", "https://169.254.169.254/", "gopher://x", "nothing"):
        response = await ada.http.post("/v1/webhooks", json={"url": url})
        assert (url, response.status_code) == (url, 422)
        assert response.json()["errors"][0]["field"] == "url"


async def test_a_tenant_has_twenty_at_most_also_of_those_that_are_made_at_once(ada: Caller) -> None:
    async def made() -> int:
        return (await ada.http.post("/v1/webhooks", json={"url": "https://example.com/", "events": []})).status_code

    answers = await asyncio.gather(*(made() for _ in range(24)))
    assert sorted(answers) == [201] * 20 + [409] * 4


async def test_on_the_command_line(ada: Caller) -> None:
    async with serving(http(410), TAKEN) as receiver:
        secret = (await said(ada, "webhooks", "create", receiver.url, "--event", "run.completed")).strip()
        (webhook,) = json.loads(await said(ada, "webhooks", "list", "--json"))["data"]
        await ada.ask("hello")
        (missed,) = await told(ada, webhook, "failed", 1)
        assert await said(ada, "webhooks", "enable", webhook["id"]) == f"enabled: {webhook['id']}\n"
        again = await said(ada, "webhooks", "replay", webhook["id"], missed["id"])
        assert again == f"pending: {missed['id']} (run.completed)\n"
        await told(ada, webhook, "delivered", 1)
        assert len(verified(receiver, secret)) == 2
    assert missed["id"] in await said(ada, "webhooks", "deliveries", webhook["id"])
    assert await said(ada, "webhooks", "delete", webhook["id"]) == f"deleted: {webhook['id']}\n"


DELIVERY = Delivery("", "dlv_1", "webhook", "", "run_1", "conv_1", "support", 1, "run.completed", {}, datetime.now(UTC))


@pytest.mark.parametrize("trick", ["private", "moved", "slow", "drips"])
async def test_a_receiver_that_plays_tricks_gets_nothing_from_it(ada: Caller, stage: Stage, trick: str) -> None:
    """A public name that leads inside; a redirect; an answer that does not come, or does not end."""
    over = asyncio.Event()
    answer = {
        "private": TAKEN,
        "moved": moved("http://127.0.0.1:1/elsewhere", 307),
        "slow": hanging(over),
        "drips": endless(b"HTTP/1.1 ", b"2", pause_s=0.01),
    }[trick]
    async with serving(answer) as receiver:
        leads_to = "10.0.0.1" if trick == "private" else "203.0.114.7"
        internet = Internet({"hooks.test": [[leads_to]]}, {(leads_to, 80): receiver.port})
        webhook = await new_webhook(ada, "https://hooks.test/", "run.failed")
        await stage.rows("UPDATE webhooks SET url = 'http://hooks.test/' WHERE webhook_id = $1", webhook["id"])
        channel = WebhookChannel(
            stage.database,
            KEYRING,
            Receivers((read_entry("hooks.test"),)),
            Exchanger(internet.resolve, internet),
            patience_s=0.3,
        )
        why = {
            "private": "not public",
            "moved": "307, and redirects are not followed",
            "slow": r"no answer within 0\.3 s",
            "drips": r"no answer within 0\.3 s",
        }[trick]
        with pytest.raises(Retryable, match=why):
            await channel.deliver(replace(DELIVERY, tenant_id=ada.tenant_id, target_id=webhook["id"]))
        assert len(receiver.requests) == (0 if trick == "private" else 1)
        assert internet.connected == ([] if trick == "private" else [(leads_to, 80)])
        over.set()
