"""What was logged is told: though no API was there when it happened, and the worker died as it was told."""

import asyncio
import os
import uuid
from pathlib import Path

from standardwebhooks import Webhook as Verifying

from holdfast.store.engine import Database, create_engine
from holdfast.temporal.client import connect
from holdfast.testing.provider import ScriptedProvider
from tests.conftest import new_tenant
from tests.harness.conditions import until
from tests.harness.processes import KillableWorker, worker_environment
from tests.harness.servers import APP_ROLE, Servers
from tests.harness.stage import KEYRING, Stage, serving_api
from tests.unit.http_servers import http, serving

DELIVERIES = "SELECT status, attempts, settled_at FROM deliveries WHERE tenant_id = $1"


async def test_no_api_when_it_happened_and_a_worker_killed_as_it_was_told(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    name = f"deliveries-{uuid.uuid4().hex[:12]}"
    await running_servers.create_database(name)
    os.environ["TEMPORAL_ADDRESS"] = running_servers.temporal_address
    url = running_servers.database_url(name, APP_ROLE)
    database = Database(create_engine(url, pool_size=2))
    worker = KillableWorker(worker_environment(url, name), tmp_path / "worker.log")

    async def dies(_: asyncio.StreamWriter) -> None:
        worker.kill()

    try:
        async with serving(dies, http(204)) as receiver:
            async with serving_api(url, name) as api:
                owner_url = running_servers.database_url(name)
                stage = Stage(api, database, url, owner_url, await connect(KEYRING), name, provider)
                ada = await stage.caller(new_tenant())
                webhook = await ada.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["run.completed"]})
                await ada.start("hello")
            await ada.http.aclose()
            await worker.start()

            async def has_happened() -> bool:
                return [row["status"] for row in await stage.rows(DELIVERIES, ada.tenant_id)] == ["pending"]

            await until(has_happened)
            assert receiver.requests == []
            async with serving_api(url, name) as api:
                await until(lambda: len(receiver.requests) == 1)
                await worker.start()

                async def is_settled() -> bool:
                    return not await stage.rows("SELECT FROM outbox WHERE tenant_id = $1", ada.tenant_id)

                await until(is_settled)
            (delivery,) = await stage.rows(DELIVERIES, ada.tenant_id)
            assert (delivery["status"], delivery["attempts"]) == ("delivered", 2)
            first, second = receiver.requests
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert first.body == second.body
            for request in (first, second):
                Verifying(webhook.json()["secret"]).verify(request.body, request.headers)
    finally:
        worker.kill()
        await database.close()
