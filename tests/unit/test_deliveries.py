"""What webhooks tell, when they are tried again, where they may go, and how they are signed."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifying

from activities.delivery import Room
from holdfast.channels.receivers import Receivers
from holdfast.channels.webhook import retry_after, signed
from holdfast.domain import deliveries, events
from holdfast.domain.deliveries import DELIVERABLE, Backoff, Delivery, told
from holdfast.domain.errors import TooManyRequests
from holdfast.domain.hosts import read_entry
from holdfast.domain.steps import DeliveryRef
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.tools.http_rules import RequestRefused

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def kinds_of_events() -> dict[str, type[events.Event]]:
    found = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
    return {kind.TYPE: kind for kind in found if hasattr(kind, "TYPE")}


def names(kind: type[events.Event]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def delivery(data: dict[str, Any]) -> Delivery:
    return Delivery(
        "acme", "dlv_1", "webhook", "whk_1", "run_1", "conv_1", "support", 7, "confirmation.decided", data, NOW
    )


def test_every_event_of_runs_and_confirmations_can_be_subscribed_to() -> None:
    assert set(DELIVERABLE) == {name for name in kinds_of_events() if name.startswith(("run.", "confirmation."))}


def test_nothing_is_told_that_people_or_models_wrote() -> None:
    """Whoever adds a field to an event decides here whether it leaves the house."""
    fields = {name for kind in DELIVERABLE for name in names(kinds_of_events()[kind])}
    at_home = {"arguments", "edited_arguments", "reason", "rule", "error", "why"}
    assert fields == deliveries._TOLD | at_home
    body = told(delivery({"confirmation_id": "conf_1", "decision": "reject", "reason": "canary"}))
    assert body == (
        '{"type": "confirmation.decided", "timestamp": "2026-11-21T12:00:00Z", "data": {"confirmation_id": "conf_1", '
        '"decision": "reject", "run_id": "run_1", "conversation_id": "conv_1", "agent": "support", "seq": 7}}'
    )


def test_attempts_get_rarer_for_a_day_and_the_last_is_made_at_its_end() -> None:
    backoff, now, waits = Backoff(), NOW, list[timedelta]()
    while (wait := backoff.wait(len(waits) + 1, NOW, now)) is not None:
        waits.append(wait)
        now += wait
    assert now == NOW + timedelta(days=1)
    assert 12 <= len(waits) <= 24
    assert timedelta(seconds=2.5) <= waits[0] <= timedelta(seconds=7.5)
    assert max(waits) <= timedelta(hours=6)
    assert backoff.wait(1_000_000, NOW, NOW) is not None


def test_who_waits_in_a_thread_is_told_soon_after_slack_is_back() -> None:
    first, patience = timedelta(seconds=5), timedelta(days=1)
    slack, webhook = (Backoff.of(kind, first, patience) for kind in ("slack", "webhook"))
    late = NOW + timedelta(hours=12)
    after_outage = slack.wait(40, NOW, late), webhook.wait(40, NOW, late)
    assert None not in after_outage
    assert [wait < timedelta(minutes=23) for wait in after_outage if wait] == [True, False]


def test_a_receiver_that_asks_for_time_gets_it_but_no_more_than_is_left() -> None:
    backoff = Backoff()
    assert backoff.wait(1, NOW, NOW, timedelta(hours=3)) == timedelta(hours=3)
    assert backoff.wait(1, NOW, NOW, timedelta(days=9)) == timedelta(days=1)
    assert backoff.wait(1, NOW, NOW + timedelta(days=1), timedelta(hours=3)) is None


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("120", timedelta(minutes=2)),
        ("Sat, 21 Nov 2026 12:01:00 GMT", timedelta(minutes=1)),
        ("Sat, 21 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("soon", None),
        ("-1", None),
        ("Sat, 21 Nov 2026 12:01:00 +99999999999999", None),
        ("1 Jan 99999999999999999999 1:1:1 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, asked: timedelta | None) -> None:
    assert retry_after(header, NOW) == asked


def test_a_signature_is_the_one_of_the_specification() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', at
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


def test_each_secret_that_is_good_signs() -> None:
    new, old = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3", "whsec_b2xkb2xkb2xkb2xkb2xkb2xk"
    headers = dict(signed([new, old], "dlv_1", "{}", datetime.now(UTC)))
    for secret in (new, old):
        assert Verifying(secret).verify("{}", headers) == {}


PRIVATE = Receivers((read_entry("http://10.0.0.5:8080"), read_entry("https://*.example.org")))


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?x=1", "https://example.com:8443", "https://[2606:2800:220:1::1]/", "https://a.b"]
)
def test_any_public_address_may_be_told_by_https(url: str) -> None:
    assert Receivers().read(url).named_address is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/hook", "https://"),
        ("https://10.0.0.5/", "not public"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://0.0.0.0/", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[fe80::1%25eth0]/", "host|read|public"),
        ("https://[64:ff9b::a9fe:a9fe]/", "not public"),
        ("https://[2002:a9fe:a9fe::1]/", "not public"),
        ("https://0x7f000001/", "host"),
        ("https://2852039166/", "host"),
        ("https://0177.0.0.1/", "can.t be read"),
        ("https://127.1/", "host"),
        ("https://\uff11\uff12\uff17.0.0.1/", "host|read|public"),
        ("https://localhost./", "host"),
        ("https://user:pass@example.com/", "password"),
        ("ftp://example.com/", "https://"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https:///", "host"),
        ("https://" + "a" * 3000, "longer"),
    ],
)
def test_no_other_address_may_be_told(url: str, why: str) -> None:
    for receivers in (Receivers(), PRIVATE):
        with pytest.raises(RequestRefused, match=why):
            receivers.read(url)


def test_what_the_operator_names_may_be_told() -> None:
    assert str(PRIVATE.read("http://10.0.0.5:8080/hook").named_address) == "10.0.0.5"
    assert Receivers(allows_loopback=True).read("http://127.0.0.1:9/x").named_address is not None
    for refused in ("http://10.0.0.5:8081/hook", "http://10.0.0.6:8080/hook"):
        with pytest.raises(RequestRefused):
            PRIVATE.read(refused)


async def test_who_hangs_holds_up_neither_another_tenant_nor_what_is_told_otherwise() -> None:
    def of(tenant: str, kind: str) -> DeliveryRef:
        return DeliveryRef(tenant, "dlv_1", f"{tenant}:{kind}:dlv_1-2")

    room = Room(TenantSlots(1), TenantSlots(2))
    async with room.one(of("acme", "webhook")):
        with pytest.raises(TooManyRequests):
            await room.one(of("acme", "webhook")).__aenter__()
        async with room.one(of("acme", "slack")), room.one(of("b", "webhook")):
            with pytest.raises(TooManyRequests):
                await room.one(of("c", "webhook")).__aenter__()
