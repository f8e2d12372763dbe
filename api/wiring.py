"""The composition root of the API: settings in, services out, on one page."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from holdfast.config.models_yaml import load_models
from holdfast.config.settings import ApiSettings
from holdfast.llm.lazy import LazyPool
from holdfast.llm.pool import ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.agents import Agents
from holdfast.services.budgets import Budgets
from holdfast.services.confirmations import Confirmations
from holdfast.services.keys import Keys
from holdfast.services.messages import Messages
from holdfast.services.models import Models
from holdfast.services.relay import Relay
from holdfast.services.request_limits import RequestLimits
from holdfast.services.runs import Runs
from holdfast.services.sweeper import Sweeper
from holdfast.services.switches import Stopper, Switches
from holdfast.services.tool_calls import ToolCalls
from holdfast.store.engine import Database, create_engine
from holdfast.streaming.run_changes import RunChanges
from holdfast.temporal import client
from holdfast.temporal.client import MessageWorkflows


@dataclass(frozen=True)
class PoolServices:
    """What the routes of the model pool ask for. `models` None: this process serves none."""

    database: Database
    keys: Keys
    limits: RequestLimits
    models: Models | None


@dataclass(frozen=True)
class Services(PoolServices):
    """Everything that a route of the API can ask for."""

    agents: Agents
    budgets: Budgets
    confirmations: Confirmations
    messages: Messages
    runs: Runs
    stopper: Stopper
    switches: Switches
    tool_calls: ToolCalls
    temporal_ui_url: str | None
    temporal_namespace: str


@asynccontextmanager
async def wire(settings: ApiSettings) -> AsyncIterator[Services]:
    """Build the services and run what runs beside them: relay, sweeper, stopper and the listening connection.

    Raises:
        ConfigurationError: the database's role is not bound by row-level security.
        Unavailable: the database does not answer. (Temporal may be away: what is accepted meanwhile starts later.)
    """
    engine = create_engine(settings.database_url.get_secret_value(), settings.database_pool_size)
    database = Database(engine)
    try:
        await database.check_role()
        temporal = await client.connect(lazy=True)
        workflows = MessageWorkflows(temporal, settings.task_queue)
        stopper = Stopper(database, workflows)
        async with _running(engine, database, workflows, stopper) as changes:
            yield Services(
                database=database,
                agents=Agents(database),
                budgets=Budgets(database),
                confirmations=Confirmations(database, workflows),
                keys=Keys(database, settings.key_pepper.get_secret_value()),
                limits=RequestLimits(settings.requests_per_minute),
                models=_models(settings, database),
                messages=Messages(database, workflows),
                runs=Runs(database, changes, workflows),
                stopper=stopper,
                switches=Switches(database),
                tool_calls=ToolCalls(database, workflows),
                temporal_ui_url=settings.temporal_ui_url,
                temporal_namespace=temporal.namespace,
            )
    finally:
        await database.close()


@asynccontextmanager
async def _running(
    engine: AsyncEngine, database: Database, workflows: MessageWorkflows, stopper: Stopper
) -> AsyncIterator[RunChanges]:
    changes, relay, sweeper = RunChanges(engine), Relay(database, workflows), Sweeper(database, workflows)
    changes.start()
    relay.start()
    sweeper.start()
    stopper.start()
    try:
        yield changes
    finally:
        await stopper.stop()
        await sweeper.stop()
        await relay.stop()
        await changes.stop()


def _models(settings: ApiSettings, database: Database) -> Models | None:
    if settings.models is None:
        return None
    file = load_models(settings.models, os.environ, allow_demo=settings.environment == "dev")
    lazy = LazyPool(lambda: ModelPool(file.for_router(), file.router_settings, file.litellm_settings))
    return Models(database, lazy.get, file.unusable, TenantSlots(settings.tenant_max_model_calls))


def pool_services(request: Request) -> PoolServices:
    """What the API and the model pool have in common, of the application that a request came to."""
    found: PoolServices = request.app.state.services
    return found


def models(request: Request) -> Models:
    """The model calls of the application that a request came to, which serves them or has no such route."""
    found = pool_services(request).models
    assert found is not None
    return found


def services(request: Request) -> Services:
    """The services of the application that a request came to."""
    found: Services = request.app.state.services
    return found
