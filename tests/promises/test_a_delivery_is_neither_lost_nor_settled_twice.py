"""What was logged is told: though no API was there when it happened, and the worker died as it was told."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from standardwebhooks import Webhook as Verifying

from holdfast.store.engine import Database, create_engine
from holdfast.temporal.client import connect
from holdfast.testing.provider import ScriptedProvider
from tests.conftest import new_tenant
from tests.harness.conditions import until
from tests.harness.processes import KillableWorker, worker_environment
from tests.harness.servers import APP_ROLE, Servers
from tests.harness.stage import KEYRING, Stage, owning, serving_api
from tests.unit.http_servers import Received, http, serving

DELIVERIES = "SELECT status, attempts FROM deliveries"


@asynccontextmanager
async def with_nothing_running(servers: Servers, provider: ScriptedProvider) -> AsyncIterator[Stage]:
    """A database and a task queue, and neither API nor worker."""
    name = f"deliveries-{uuid.uuid4().hex[:12]}"
    await servers.create_database(name)
    os.environ["TEMPORAL_ADDRESS"] = servers.temporal_address
    url, owner_url = servers.database_url(name, APP_ROLE), servers.database_url(name)
    database = Database(create_engine(url, pool_size=2))
    try:
        async with owning(owner_url) as owner:
            yield Stage("", database, url, owner_url, owner, await connect(KEYRING), name, provider)
    finally:
        await database.close()


async def something_begins(stage: Stage, receiver_url: str) -> str:
    """A message is accepted, whose end a webhook is to be told; answers with the webhook's secret. The API is gone."""
    async with serving_api(stage.database_url, stage.task_queue) as api:
        ada = await replace(stage, url=api).caller(new_tenant())
        webhook = await ada.http.post("/v1/webhooks", json={"url": receiver_url, "events": ["run.completed"]})
        await ada.start("hello")
        await ada.http.aclose()
    return str(webhook.json()["secret"])


async def test_no_api_when_it_happened_and_a_worker_killed_as_it_was_told(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    async with with_nothing_running(running_servers, provider) as stage:
        worker = KillableWorker(worker_environment(stage.database_url, stage.task_queue), tmp_path / "worker.log")

        async def dies(_: asyncio.StreamWriter) -> None:
            worker.kill()

        async def has_happened() -> bool:
            return [row["status"] for row in await stage.rows(DELIVERIES)] == ["pending"]

        async def nothing_is_left_to_say() -> bool:
            return not await stage.rows("SELECT FROM outbox")

        try:
            async with serving(dies, http(204)) as receiver:
                secret = await something_begins(stage, receiver.url)
                await worker.start()
                await until(has_happened)
                assert receiver.requests == []
                async with serving_api(stage.database_url, stage.task_queue):
                    await until(lambda: len(receiver.requests) == 1)
                    await worker.start()
                    await until(nothing_is_left_to_say)
        finally:
            worker.kill()
        assert [tuple(row) for row in await stage.rows(DELIVERIES)] == [("delivered", 2)]
        it_is_the_same_and_signed(receiver.requests, secret)


def it_is_the_same_and_signed(requests: list[Received], secret: str) -> None:
    first, second = requests
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    for request in requests:
        Verifying(secret).verify(request.body, request.headers)
