"""A tenant with much to do, or with a provider that hangs, does not keep another tenant waiting."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.common import Priority

from holdfast.temporal import client
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Hang, Reply, Text
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.servers import Servers
from tests.harness.stage import Stage, playing_without_a_worker, worker_settings
from worker import wiring

FLOOD = 300
TRICKLE = 15

_ENDED = "SELECT tenant_id FROM runs WHERE completed_at IS NOT NULL ORDER BY completed_at"


def new_name() -> str:
    return f"flood-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def working(stage: Stage, **settings: int) -> AsyncIterator[None]:
    """A worker that soon has all its hands full."""
    own = worker_settings(stage.database_url, stage.task_queue)
    own = own.model_copy(update={"worker_max_activities": 8, **settings})
    async with wiring.wire(own) as parts, parts.worker:
        yield


async def send_many(caller: Caller, number: int, text: str) -> list[str]:
    room = asyncio.Semaphore(10)

    async def send() -> str:
        async with room:
            return await caller.start(text)

    return list(await asyncio.gather(*(send() for _ in range(number))))


async def positions_of_the_trickle(servers: Servers, provider: ScriptedProvider) -> list[int]:
    """At which places, of all runs, those of the tenant with few ended, which were sent last."""
    async with playing_without_a_worker(servers, provider, new_name()) as stage:
        flood, trickle = await stage.caller("flood"), await stage.caller("trickle")
        await send_many(flood, FLOOD, "hello")
        await send_many(trickle, TRICKLE, "hello")
        async with working(stage):
            ended: list[str] = []

            async def are_there() -> bool:
                ended[:] = [row["tenant_id"] for row in await stage.rows(_ENDED)]
                return ended.count("trickle") == TRICKLE

            await until(are_there)
            provider.reset()
    return [place for place, tenant in enumerate(ended, 1) if tenant == "trickle"]


@pytest.mark.timeout(240)
async def test_few_messages_behind_many_of_another_tenant_are_answered_among_the_first(
    running_servers: Servers, provider: ScriptedProvider
) -> None:
    places = await positions_of_the_trickle(running_servers, provider)

    assert len(places) == TRICKLE
    assert places[TRICKLE // 2] < FLOOD / 3, "in turn, the last would be place 30 or so"
    assert places[-1] < FLOOD / 2


@pytest.mark.timeout(240)
async def test_without_a_fairness_key_they_wait_behind_all_the_others(
    running_servers: Servers, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail."""
    monkeypatch.setattr(client, "Priority", lambda **_: Priority.default)
    places = await positions_of_the_trickle(running_servers, provider)

    assert places[TRICKLE // 2] > FLOOD / 2


def hangs_for_the_flood(request: RecordedRequest) -> Reply:
    return Hang() if request.last_text == "hang" else Text("Hello.")


@pytest.mark.timeout(240)
async def test_calls_that_hang_leave_slots_for_another_tenant(
    running_servers: Servers, provider: ScriptedProvider
) -> None:
    provider.default = hangs_for_the_flood
    async with playing_without_a_worker(running_servers, provider, new_name()) as stage, working(stage):
        flood, trickle = await stage.caller("flood"), await stage.caller("trickle")
        await send_many(flood, FLOOD, "hang")
        await until(lambda: provider.in_flight == 4)
        answered = [(await trickle.send("hello", wait=50)).json()["status"] for _ in range(TRICKLE)]

        assert answered == ["completed"] * TRICKLE
        assert provider.most_in_flight == 5, "half of the worker's eight, and the other tenant's"
        assert {run["status"] for run in (await flood.get("/v1/runs", limit=100))["data"]} <= {"queued", "running"}


async def test_a_message_joins_a_turn_that_waited_for_a_slot(
    running_servers: Servers, provider: ScriptedProvider
) -> None:
    """An attempt that had no slot has asked nothing, so what came meanwhile is part of the question."""
    provider.default = hangs_for_the_flood
    async with (
        playing_without_a_worker(running_servers, provider, new_name()) as stage,
        working(stage, tenant_max_model_calls=1),
    ):
        ada = await stage.caller("ada")
        await ada.start("hang")
        await until(lambda: provider.in_flight == 1)
        first = (await ada.send("one", agent="steered")).json()
        handle = stage.temporal.get_workflow_handle(f"ada:steered:{first['message_id']}")

        async def had_no_slot() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return bool(pending) and pending[0].last_failure.application_failure_info.type == "TenantAtCap"

        await until(had_no_slot)
        second = await ada.start("two", agent="steered", conversation_id=first["conversation_id"])
        provider.default = lambda _: Text("Hello.")
        provider.release()

        assert (await ada.ended(second))["status"] == "merged"
        assert (await ada.ended(first["run_id"]))["reply"] == "Hello."
        told = [message["content"] for message in provider.requests[-1].body["messages"] if message["role"] == "user"]
        assert told == ["one", "two"]
