"""The composition root of the API: settings in, services out, on one page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from holdfast.config.settings import ApiSettings
from holdfast.services.agents import Agents
from holdfast.services.confirmations import Confirmations
from holdfast.services.keys import Keys
from holdfast.services.messages import Messages
from holdfast.services.relay import Relay
from holdfast.services.runs import Runs
from holdfast.store.engine import Database, create_engine
from holdfast.streaming.run_changes import RunChanges
from holdfast.temporal import client
from holdfast.temporal.client import MessageWorkflows


@dataclass(frozen=True)
class Services:
    """Everything that a route can ask for."""

    database: Database
    agents: Agents
    confirmations: Confirmations
    keys: Keys
    messages: Messages
    runs: Runs
    temporal_ui_url: str | None
    temporal_namespace: str


@asynccontextmanager
async def wire(settings: ApiSettings) -> AsyncIterator[Services]:
    """Build the services and run what runs beside them, the relay and the listening connection.

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
        async with _running(engine, database, workflows) as changes:
            yield Services(
                database=database,
                agents=Agents(database),
                confirmations=Confirmations(database, workflows),
                keys=Keys(database, settings.key_pepper.get_secret_value()),
                messages=Messages(database, workflows),
                runs=Runs(database, changes),
                temporal_ui_url=settings.temporal_ui_url,
                temporal_namespace=temporal.namespace,
            )
    finally:
        await database.close()


@asynccontextmanager
async def _running(engine: AsyncEngine, database: Database, workflows: MessageWorkflows) -> AsyncIterator[RunChanges]:
    changes, relay = RunChanges(engine), Relay(database, workflows)
    changes.start()
    relay.start()
    try:
        yield changes
    finally:
        await relay.stop()
        await changes.stop()


def services(request: Request) -> Services:
    """The services of the application that a request came to."""
    found: Services = request.app.state.services
    return found
