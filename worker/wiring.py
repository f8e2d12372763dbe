"""The composition root of the worker: settings in, activities and a Temporal worker out, on one page."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from activities import heartbeat
from activities.catalogue import AgentCatalogue
from activities.confirmations import ConfirmationActivities
from activities.delivery import DeliveryActivities, Room
from activities.model import ModelActivities
from activities.tools import ToolActivities
from activities.turn import TurnActivities
from holdfast.channels.channel import Channels
from holdfast.channels.receivers import Receivers
from holdfast.channels.slack import SlackChannel
from holdfast.channels.slack_client import SlackClient
from holdfast.channels.webhook import WebhookChannel
from holdfast.config import agents_yaml
from holdfast.config.mcp_json import McpFile, load_mcp
from holdfast.config.mcp_lock import lock_path, read_lock
from holdfast.config.models_yaml import ModelsFile, load_models
from holdfast.config.settings import WorkerSettings
from holdfast.config.slack_yaml import slack_of
from holdfast.domain.deliveries import Backoff
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.hosts import read_entry
from holdfast.domain.mcp import tool_prefix
from holdfast.llm.pool import SET_A_PRICE, ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.provider_keys import ProviderKeys
from holdfast.services.switches import Stopper
from holdfast.store.engine import Database, create_engine
from holdfast.streaming.herald import Herald
from holdfast.temporal import client
from holdfast.temporal.client import MessageWorkflows
from holdfast.tools.functions import tools_of_modules
from holdfast.tools.http import http_request_tool
from holdfast.tools.mcp import McpServers
from holdfast.tools.registry import ToolRegistry
from holdfast.tools.run import ToolRunner
from worker.sandbox import sandboxed_runner
from workflows.delivery import DeliveryWorkflow
from workflows.message import MessageWorkflow

log = logging.getLogger(__name__)

#: After a worker's SIGKILL its cached runs wait this long for it before another takes them over. The default is 10 s.
_STICKY_TIMEOUT = timedelta(seconds=2)


@dataclass(frozen=True)
class Parts:
    """A worker ready to run, and what its health check asks."""

    worker: Worker
    database: Database


@asynccontextmanager
async def wire(settings: WorkerSettings) -> AsyncIterator[Parts]:
    """Read the configuration, connect, and build the worker.

    Raises:
        ConfigurationError: a file or variable is wrong, or the database's role is not bound by row-level security.
        Unavailable: the database or Temporal does not answer.
    """
    file = agents_yaml.load_agents(settings.agents)
    models = load_models(file.models_path, os.environ, allow_demo=settings.environment == "dev")
    agents_yaml.check_aliases(file, models.aliases, models.unusable)
    mcp = None if file.mcp_path is None else load_mcp(file.mcp_path, os.environ)
    tools = ToolRegistry([*tools_of_modules(file.tool_modules), http_request_tool()])
    agents_yaml.check_tools(file, tools.described)
    prefixes = [] if mcp is None else [tool_prefix(server.name) for server in mcp.servers]
    _warn(models, [*(() if mcp is None else mcp.warnings), *agents_yaml.warnings(file, tools.described, prefixes)])
    engine = create_engine(settings.database_url.get_secret_value(), settings.database_pool_size)
    runner, herald = ToolRunner(), Herald(engine)
    database = Database(engine, herald.tell)
    try:
        await database.check_role()
        temporal = await client.connect(settings.keyring)
        pool = ModelPool(models.for_router(), models.router_settings, models.litellm_settings)
        for model in pool.unpriced:
            log.warning("%s: no price is known for %s: %s", models.path, model, SET_A_PRICE)
        workflows = MessageWorkflows(temporal, settings.task_queue)
        activities = _activities(settings, database, workflows, pool, tools, runner)
        async with _mcp_servers(mcp, tools), _stopping(database, workflows):
            yield Parts(_worker(settings, temporal, activities), database)
    finally:
        await herald.close()
        await database.close()


def _mcp_servers(mcp: McpFile | None, tools: ToolRegistry) -> McpServers:
    if mcp is None:
        return McpServers([], tools, dict)
    lock = lock_path(mcp.path)
    # Read once here, so that a mistake in it stops the start, and again whenever a server has listed its tools.
    read_lock(lock)
    return McpServers(mcp.servers, tools, partial(read_lock, lock))


@asynccontextmanager
async def _stopping(database: Database, workflows: MessageWorkflows) -> AsyncIterator[None]:
    """Carry out the kill switch as the API does: it is thrown in the database, whether or not an API is up."""
    stopper = Stopper(database, workflows)
    stopper.start()
    try:
        yield
    finally:
        await stopper.stop()


def _activities(
    settings: WorkerSettings,
    database: Database,
    workflows: MessageWorkflows,
    pool: ModelPool,
    tools: ToolRegistry,
    runner: ToolRunner,
) -> Sequence[Callable[..., Any]]:
    catalogue = AgentCatalogue()
    provider_keys = ProviderKeys(database, settings.keyring)
    turn = TurnActivities(database, catalogue, workflows)
    confirmations = ConfirmationActivities(database, catalogue, tools)
    return [
        turn.begin_turn,
        turn.reclaim_turn,
        turn.finish_turn,
        ModelActivities(database, catalogue, pool, tools, provider_keys, _slots(settings)).call_model,
        ToolActivities(database, catalogue, tools, runner).execute_tool,
        confirmations.request_confirmation,
        confirmations.check_confirmation,
        _deliveries(settings, database).deliver,
    ]


def _deliveries(settings: WorkerSettings, database: Database) -> DeliveryActivities:
    backoff = partial(
        Backoff.of,
        first=timedelta(seconds=settings.delivery_first_retry_s),
        patience=timedelta(hours=settings.delivery_patience_h),
    )
    # Receivers outside may hang: of each kind, those of a tenant hold a sixteenth of the worker at most, all of them a
    # quarter of it.
    slots = settings.worker_max_activities
    room = Room(TenantSlots(max(1, slots // 16)), TenantSlots(max(1, slots // 4)))
    return DeliveryActivities(database, _channels(settings, database), backoff, room)


def _channels(settings: WorkerSettings, database: Database) -> Channels:
    """Every way in which somebody outside is told, by the kind of delivery."""
    allowed = tuple(map(read_entry, settings.webhook_allow))
    receivers = Receivers(allowed, allows_loopback=settings.environment == "dev")
    webhooks = WebhookChannel(database, settings.keyring, receivers)
    slack = slack_of(settings, os.environ)
    for warning in slack.warnings:
        log.warning("%s", warning)
    workspaces = {app.workspace.team_id: app.workspace for app in slack.apps}
    client = partial(SlackClient, api_url=settings.slack_api_url)
    return {"webhook": webhooks, "slack": SlackChannel(database, workspaces, client)}


def _slots(settings: WorkerSettings) -> TenantSlots:
    """By default, a tenant has half of the worker for its calls; a few more wait here, so that no slot stands idle."""
    calls = settings.tenant_max_model_calls or max(1, settings.worker_max_activities // 2)
    return TenantSlots(calls, waiting=calls // 4)


def _versioning() -> WorkerDeploymentConfig | None:
    """The version of this worker, as the Temporal worker controller and its command line name it; None: it has none.

    A run stays with the version that it began on, so that a new one never has to replay what it did not write.
    """
    name, build = os.environ.get("TEMPORAL_DEPLOYMENT_NAME"), os.environ.get("TEMPORAL_WORKER_BUILD_ID")
    if not name and not build:
        return None
    if not name or not build:
        missing = "TEMPORAL_WORKER_BUILD_ID" if name else "TEMPORAL_DEPLOYMENT_NAME"
        raise ConfigurationError(f"{missing}: is not set, and the other half of the worker's version is; set both")
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=name, build_id=build),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


def _worker(settings: WorkerSettings, temporal: Client, activities: Sequence[Callable[..., Any]]) -> Worker:
    return Worker(
        temporal,
        task_queue=settings.task_queue,
        workflows=[MessageWorkflow, DeliveryWorkflow],
        activities=activities,
        workflow_runner=sandboxed_runner(),
        deployment_config=_versioning(),
        max_cached_workflows=settings.worker_max_cached_workflows,
        max_concurrent_activities=settings.worker_max_activities,
        max_concurrent_local_activities=settings.worker_max_activities,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        sticky_queue_schedule_to_start_timeout=_STICKY_TIMEOUT,
        # The default is most of the heartbeat timeout, and a cancellation comes with a heartbeat's answer.
        max_heartbeat_throttle_interval=heartbeat.INTERVAL,
        # The default, zero, would cancel running activities at once and run them again elsewhere.
        graceful_shutdown_timeout=timedelta(seconds=settings.worker_drain_s),
    )


def _warn(models: ModelsFile, others: list[str]) -> None:
    for left_out in models.left_out:
        log.info("%s", left_out)
    for warning in (*models.warnings, *others):
        log.warning("%s", warning)
