"""So many requests a minute, and so many model calls at a time: more are told when to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from holdfast.services import request_limits
from holdfast.services.request_limits import Buckets
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage, serving_api

ASK = {"alias": "fast", "messages": [{"role": "user", "content": "?"}]}


@asynccontextmanager
async def serving(stage: Stage, **settings: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with limits of its own."""
    async with (
        serving_api(stage.database_url, stage.task_queue, **settings) as url,
        httpx.AsyncClient(base_url=url, timeout=40) as http,
    ):
        yield http


async def test_more_than_so_many_requests_a_minute_are_refused_until_later(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(ada.tenant_id, "bob")
    async with serving(stage, requests_per_minute=5) as http:

        async def get(path: str, caller: Caller) -> httpx.Response:
            return await http.get(path, headers={"authorization": f"Bearer {caller.key}"})

        answers = [await get("/v1/runs", ada) for _ in range(8)]
        others = await get("/v1/runs", bob)
        health = [(await http.get("/livez")).status_code for _ in range(8)]

    assert [one.status_code for one in answers] == [200] * 5 + [429] * 3
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert answers[-1].json()["title"] == "Too many requests"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 12
    assert others.status_code == 200, "another person has a limit of their own"
    assert health == [200] * 8


async def test_wrong_keys_are_counted_by_address_and_hold_no_right_one_up(
    ada: Caller, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "FAILURES_A_MINUTE", 3)
    async with serving(stage, requests_per_minute=100) as http:
        wrong = [
            (await http.get("/v1/runs", headers={"authorization": f"Bearer hf_{n}"})).status_code for n in range(5)
        ]
        keyless = await http.get("/v1/runs")
        right = await http.get("/v1/runs", headers={"authorization": f"Bearer {ada.key}"})

    assert wrong == [401] * 3 + [429] * 2
    assert keyless.status_code == 429
    assert "retry-after" in keyless.headers
    assert right.status_code == 200


def test_a_bucket_fills_evenly_and_holds_a_minutes_worth() -> None:
    now = 1000.0
    buckets = Buckets(6, clock=lambda: now)
    assert [buckets.take("a") for _ in range(6)] == [None] * 6
    wait = buckets.take("a")
    assert wait is not None
    assert wait.total_seconds() == pytest.approx(10)
    now += 10
    assert buckets.take("a") is None
    assert buckets.take("a") is not None
    now += 3600
    assert [buckets.take("a") is None for _ in range(7)] == [True] * 6 + [False]


def test_the_buckets_do_not_grow_without_bounds() -> None:
    buckets = Buckets(6)
    for number in range(request_limits.REMEMBERED + 100):
        buckets.take(number)
    assert len(buckets._full_at) == request_limits.REMEMBERED


async def test_a_tenant_has_so_many_calls_of_the_pool_in_flight(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    stranger = await stage.caller(f"{ada.tenant_id}-other")
    provider.script(Hang(), Hang())
    async with serving(stage, tenant_max_model_calls=2) as http:

        async def complete(caller: Caller) -> httpx.Response:
            return await http.post("/complete", json=ASK, headers={"authorization": f"Bearer {caller.key}"})

        held = [asyncio.create_task(complete(ada)) for _ in range(2)]
        await until(lambda: provider.in_flight == 2)
        refused = await complete(ada)
        others = await complete(stranger)
        provider.release()
        await asyncio.gather(*held)
        again = await complete(ada)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert others.status_code == 200
    assert again.status_code == 200
    assert provider.most_in_flight == 3
