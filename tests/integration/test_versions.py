"""A run stays with the version of the worker that it began on, and new ones go to the newest."""

import uuid

import pytest
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from holdfast.domain.errors import ConfigurationError
from holdfast.temporal.client import connect
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.conftest import new_tenant
from tests.harness.conditions import until
from tests.harness.servers import Servers
from tests.harness.stage import playing, worker_settings
from worker import wiring


async def make_current(client: Client, deployment: str, build: str) -> None:
    """Route new runs to a build, as soon as a worker of it is known."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=deployment, build_id=build, ignore_missing_task_queues=True
    )

    async def is_current() -> bool:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            return False
        return True

    await until(is_current)


async def build_of(client: Client, workflow: str) -> str:
    description = await client.get_workflow_handle(workflow).describe()
    return str(description.raw_description.workflow_execution_info.versioning_info.deployment_version.build_id)


async def test_an_open_run_ends_on_the_build_it_began_on(
    running_servers: Servers, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"versions-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("TEMPORAL_DEPLOYMENT_NAME", name)
    monkeypatch.setenv("TEMPORAL_WORKER_BUILD_ID", "old")
    async with playing(running_servers, provider, name) as stage:
        client = await connect()
        await make_current(client, name, "old")
        ada = await stage.caller(new_tenant())
        provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
        began = await ada.ask("pay")
        asked = await ada.only_pending(began)

        monkeypatch.setenv("TEMPORAL_WORKER_BUILD_ID", "new")
        async with wiring.wire(worker_settings(stage.database_url, name)) as parts, parts.worker:
            await make_current(client, name, "new")

            async def goes_to_the_new_one() -> bool:
                fresh = await ada.ask("hello")
                assert fresh["reply"] == "You said: hello"
                return await build_of(client, f"{ada.tenant_id}:support:{fresh['message_id']}") == "new"

            # The server tells its task queues of a new current version in its own time.
            await until(goes_to_the_new_one)
            await ada.decide(asked)
            ended = await ada.ended(began["id"])
            build = await build_of(client, f"{ada.tenant_id}:support:{ended['message_id']}")

    assert (ended["reply"], build) == ('You said: {"paid":1}', "old")


@pytest.mark.parametrize("half", ["TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"])
async def test_half_a_version_is_refused(
    running_servers: Servers, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    monkeypatch.setenv(half, "shop")
    with pytest.raises(ConfigurationError, match="is not set, and the other half"):
        async with playing(running_servers, provider, f"versions-{uuid.uuid4().hex[:12]}"):
            pass
