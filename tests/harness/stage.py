"""The whole application in this process, on the session's real servers: the API over HTTP, the worker, the provider."""

import asyncio
import base64
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql import insert
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

import api.wiring
from api.app import create_app
from holdfast.config import agents_yaml
from holdfast.config.settings import ApiSettings, WorkerSettings
from holdfast.dev.serving import serving
from holdfast.domain.ids import workflow_id
from holdfast.domain.permissions import Role
from holdfast.secrecy.keyring import Keyring
from holdfast.services.keys import Keys
from holdfast.store.engine import Database, create_engine
from holdfast.store.tables.schema import metadata
from holdfast.store.tables.tenants import agents
from holdfast.temporal.client import connect
from holdfast.testing.provider import ScriptedProvider
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.servers import APP_ROLE, Servers
from worker import wiring

AGENTS = Path("tests/agents/agents.yaml").resolve()
PEPPER = "pepper-of-the-tests-" + "0" * 32
PAYLOAD_KEYS = "tests:" + base64.b64encode(b"a key of the tests, and of none!").decode()
KEYRING = Keyring.parse(PAYLOAD_KEYS)

_OPEN_RUNS = """
SELECT agent, message_id FROM runs
WHERE tenant_id = $1 AND status NOT IN ('completed', 'failed', 'cancelled')
"""


@functools.cache
def _agent_rows() -> list[dict[str, Any]]:
    """Every agent of the tests, in its first version."""
    specs = agents_yaml.load_agents(AGENTS).agents
    return [{"name": spec.name, "version": 1, "spec": spec.model_dump(mode="json")} for spec in specs]


@dataclass(frozen=True)
class Stage:
    """What a test can reach. `database_url` is the application role's; `owner_url` sees every tenant's rows."""

    url: str
    database: Database
    database_url: str
    owner_url: str
    temporal: Client
    task_queue: str
    provider: ScriptedProvider
    callers: list[Caller] = field(default_factory=list)
    #: Connections of the owner, kept from one question to the next.
    owners: "asyncpg.Pool[asyncpg.Record] | None" = None

    async def caller(
        self, tenant_id: str, person: str = "ada", roles: Collection[str] = (), only: Collection[str] = tuple(Role)
    ) -> Caller:
        """A caller with a key of a tenant, which is made with every agent of the tests if it is new.

        `roles` are those that policies ask for; `only`: which of those that give permissions, all of them by default.
        """
        made = await Keys(self.database, PEPPER).create(tenant_id, person, [*roles, *only])
        async with self.database.tenant(tenant_id) as connection:
            # All at once: most tests have a tenant of their own, and each agent applied would be a transaction.
            rows = [{"tenant_id": tenant_id, **row} for row in _agent_rows()]
            await connection.execute(insert(agents).values(rows).on_conflict_do_nothing())
        self.callers.append(Caller(self.url, made.secret, tenant_id, person))
        return self.callers[-1]

    async def dismiss_callers(self) -> None:
        """Close the callers' connections, and terminate the runs that they leave."""
        for tenant_id in {caller.tenant_id for caller in self.callers}:
            await self._terminate_open_runs(tenant_id)
        while self.callers:
            await self.callers.pop().http.aclose()

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Rows as the owner sees them, whoever's they are."""
        if self.owners is not None:
            return list(await self.owners.fetch(query, *values))
        async with owning(self.owner_url) as owners:
            return list(await owners.fetch(query, *values))

    async def everything_of(self, tenant_id: str) -> dict[str, list[str]]:
        """Every row of a tenant, by table."""
        of_table = [f"SELECT '{table}', t::text FROM {table} t WHERE tenant_id = $1" for table in metadata.tables]
        found: dict[str, list[str]] = {table: [] for table in metadata.tables}
        for table, row in await self.rows(" UNION ALL ".join(of_table) + " ORDER BY 1, 2", tenant_id):
            found[table].append(row)
        return found

    async def reset_to_the_beginning(self, workflow: str) -> None:
        """Have a workflow run again from its first task on, as an operator can, and wait for its end."""
        await self.reset(workflow)
        await self.temporal.get_workflow_handle(workflow).result()

    async def reset(self, workflow: str) -> None:
        """Have a workflow run again from its first task on, as an operator can."""
        first = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        handle = self.temporal.get_workflow_handle(workflow)
        history = await handle.fetch_history()
        request = ResetWorkflowExecutionRequest(
            namespace=self.temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow),
            workflow_task_finish_event_id=next(e.event_id for e in history.events if e.event_type == first),
            reason="a test",
            request_id=workflow,
        )
        await self.temporal.workflow_service.reset_workflow_execution(request)

    async def _terminate_open_runs(self, tenant_id: str) -> None:
        # One that went on would take the next test's scripted replies.
        open_runs = await self.rows(_OPEN_RUNS, tenant_id)
        for run in open_runs:
            workflow = workflow_id(tenant_id, run["agent"], run["message_id"])
            with contextlib.suppress(RPCError):
                await self.temporal.get_workflow_handle(workflow).terminate("the test is over")
        # A call that hung fails now, and falls back to another deployment: let that come before the next test counts.
        self.provider.release()
        if open_runs:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until(lambda: not self.provider.in_flight), 2)


def owning(owner_url: str) -> "asyncpg.Pool[asyncpg.Record]":
    """Connections of the owner, for as long as the block."""
    url = make_url(owner_url).set(drivername="postgresql").render_as_string()
    return asyncpg.create_pool(url, min_size=0, max_size=4)


def _api_settings(database_url: str, task_queue: str, **others: Any) -> ApiSettings:
    """Settings of an API of the tests, which are in a hurry."""
    usual: dict[str, Any] = {
        "environment": "dev",
        "database_url": SecretStr(database_url),
        "key_pepper": SecretStr(PEPPER),
        "payload_keys": SecretStr(PAYLOAD_KEYS),
        "requests_per_minute": 0,
        "task_queue": task_queue,
        "temporal_ui_url": "http://temporal.test",
        "models": AGENTS.with_name("models.yaml"),
    }
    return ApiSettings(**(usual | others))


@asynccontextmanager
async def serving_api(
    database_url: str, task_queue: str, port: int | None = None, /, **settings: Any
) -> AsyncIterator[str]:
    """An API of the tests, with the usual settings and others, on any port by default; gives its URL."""
    async with (
        api.wiring.wire(_api_settings(database_url, task_queue, **settings)) as services,
        serving(create_app(services), port, on_stop=services.events.stop) as url,
    ):
        yield url


def _secret(value: str | None) -> SecretStr | None:
    return None if value is None else SecretStr(value)


def worker_settings(
    database_url: str,
    task_queue: str,
    agents: Path = AGENTS,
    payload_keys: str | None = PAYLOAD_KEYS,
    **others: Any,
) -> WorkerSettings:
    """Settings of a worker of the tests, whose tools are those of a file of agents; and others."""
    return WorkerSettings(
        **others,
        environment="dev",
        database_url=SecretStr(database_url),
        payload_keys=_secret(payload_keys),
        agents=agents,
        task_queue=task_queue,
        worker_drain_s=0,
        delivery_first_retry_s=0.1,
    )


@asynccontextmanager
async def dismissing(stage: Stage) -> AsyncIterator[Stage]:
    """A stage whose callers are dismissed at the end: what they leave open would be another test's warning."""
    try:
        yield stage
    finally:
        await stage.dismiss_callers()


@asynccontextmanager
async def playing(
    servers: Servers,
    provider: ScriptedProvider,
    name: str,
    agents: Path = AGENTS,
    payload_keys: str | None = PAYLOAD_KEYS,
    slack: Mapping[str, Any] | None = None,
) -> AsyncIterator[Stage]:
    """Everything runs while the block does, on a database and a task queue called `name`; with Slack, if set."""
    slack = slack or {}
    await servers.create_database(name)
    os.environ["TEMPORAL_ADDRESS"] = servers.temporal_address
    database_url = servers.database_url(name, APP_ROLE)
    database = Database(create_engine(database_url, pool_size=5))
    try:
        async with (
            wiring.wire(worker_settings(database_url, name, agents, payload_keys, **slack)) as parts,
            parts.worker,
            serving_api(database_url, name, payload_keys=_secret(payload_keys), **slack) as url,
        ):
            owner_url = servers.database_url(name)
            temporal = await connect(KEYRING)
            async with (
                owning(owner_url) as owners,
                dismissing(
                    Stage(url, database, database_url, owner_url, temporal, name, provider, owners=owners)
                ) as stage,
            ):
                yield stage
    finally:
        await database.close()


@asynccontextmanager
async def playing_without_a_worker(servers: Servers, provider: ScriptedProvider, name: str) -> AsyncIterator[Stage]:
    """An API alone, while the block runs, on a database and a task queue called `name`."""
    await servers.create_database(name)
    os.environ["TEMPORAL_ADDRESS"] = servers.temporal_address
    database_url = servers.database_url(name, APP_ROLE)
    database = Database(create_engine(database_url, pool_size=5))
    try:
        async with serving_api(database_url, name) as url:
            owner_url = servers.database_url(name)
            async with owning(owner_url) as owners:
                stage = Stage(url, database, database_url, owner_url, await connect(), name, provider, owners=owners)
                async with dismissing(stage):
                    yield stage
    finally:
        await database.close()
