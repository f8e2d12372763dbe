"""What a kill switch covers is stopped, though the worker is killed and the API restarted in the middle of it.

30 runs of three tenants, in every state. The API is stopped, and the switch of one tenant thrown: the worker alone ends
that tenant's runs. Then it is killed, and the switch of another tenant thrown; an API that starts afterwards, with no
worker there, ends all of those. A worker that comes back finds nothing to do for them, and goes on with the third's.
"""

import os
from pathlib import Path

import pytest

from holdfast.domain.switches import Scope
from holdfast.services.switches import Switches
from holdfast.store.engine import Database, create_engine
from holdfast.temporal.client import connect
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.processes import KillableWorker, worker_environment
from tests.harness.servers import APP_ROLE, Servers
from tests.harness.stage import Stage, serving_api
from tests.integration.test_switches import Busy, busy, obedient


@pytest.mark.timeout(240)
async def test_killed_worker_restarted_api(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    name = "kill-switch"
    await running_servers.create_database(name)
    os.environ["TEMPORAL_ADDRESS"] = running_servers.temporal_address
    database_url = running_servers.database_url(name, APP_ROLE)
    database = Database(create_engine(database_url, pool_size=5))
    owner_url = running_servers.database_url(name)
    worker = KillableWorker(worker_environment(database_url, name), tmp_path / "worker.log")
    provider.default = obedient
    try:
        async with serving_api(database_url, name) as url:
            stage = Stage(url, database, database_url, owner_url, await connect(), name, provider)
            await worker.start()
            ada, bob = await stage.caller("a-tenant"), await stage.caller("b-tenant", "bob")
            hers, his = await busy(ada, tmp_path), await busy(bob, tmp_path)
            carlas = await busy(await stage.caller("c-tenant", "carla"), tmp_path)
        await Switches(database).throw(Scope("c-tenant"), "it writes nonsense", "an operator")
        await until(lambda: has_ended_all(stage, carlas))
        worker.kill()
        await Switches(database).throw(Scope("a-tenant"), "it writes nonsense", "an operator")
        async with serving_api(database_url, name) as url:
            hers, his = moved(hers, url), moved(his, url)
            await until(hers.are_cancelled)
            assert await his.are_in_every_state()
            assert (await hers.caller.get("/v1/confirmations", status="pending"))["data"] == []
            assert len((await his.caller.get("/v1/confirmations", status="pending"))["data"]) == 3

            for marker in (hers.marker, his.marker, carlas.marker):
                Path(marker).touch()
            provider.default = lambda _: Text("Done.")
            provider.release()
            asked = provider.calls
            await worker.start()
            for confirmation in (await his.caller.get("/v1/confirmations", status="pending"))["data"]:
                if confirmation["tool"] == "pay":
                    assert (await his.caller.decide(confirmation)).status_code == 200
            await until(lambda: no_workflow_is_open(stage, hers))
            await until(lambda: len(effects("pay", his.marker)) == 3 and len(effects("send_slowly", his.marker)) == 2)
            assert [len(effects("pay", one.marker)) for one in (hers, his, carlas)] == [0, 3, 0]
            assert [len(effects("send_slowly", one.marker)) for one in (hers, his, carlas)] == [2, 2, 2]
            about_hers = [one for one in provider.requests[asked:] if hers.marker in str(one.body)]
            assert about_hers == []
            await hers.caller.http.aclose()
            await his.caller.http.aclose()
            await stage.dismiss_callers()
    finally:
        worker.kill()
        await database.close()


def moved(tenant: Busy, url: str) -> Busy:
    """The same tenant, at the API that has started since."""
    before = tenant.caller
    return Busy(Caller(url, before.key, before.tenant_id, before.person), tenant.marker, tenant.runs)


async def has_ended_all(stage: Stage, tenant: Busy) -> bool:
    """Whether a tenant's runs are cancelled, as the record has it: there is no API to ask."""
    query = "SELECT DISTINCT status FROM runs WHERE run_id = ANY($1)"
    return [row["status"] for row in await stage.rows(query, tenant.runs)] == ["cancelled"]


async def no_workflow_is_open(stage: Stage, tenant: Busy) -> bool:
    for run_id in tenant.runs:
        run = await tenant.caller.get(f"/v1/runs/{run_id}")
        workflow = stage.temporal.get_workflow_handle(f"{tenant.caller.tenant_id}:support:{run['message_id']}")
        if (await workflow.describe()).close_time is None:
            return False
    return True
