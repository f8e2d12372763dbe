"""`holdfast pool`: the model pool as a service of its own, for programs that want a model and no agent."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import auth, middleware, problems
from api.routes import docs, health
from api.routes import models as model_routes
from api.serving import serve
from api.wiring import PoolServices, access
from holdfast.config.models_yaml import load_models
from holdfast.config.process import started_with
from holdfast.config.settings import PoolSettings
from holdfast.llm.pool import SET_A_PRICE, ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.models import Models
from holdfast.services.provider_keys import ProviderKeys
from holdfast.store.engine import Database, create_engine

_DESCRIPTION = """
Completions, structured output and embeddings by alias: which model answers is said in models.yaml, and only there.

Authenticate with an API key: `Authorization: Bearer hf_…`. Errors are `application/problem+json` (RFC 9457).
"""

log = logging.getLogger(__name__)


def create_app(services: PoolServices) -> FastAPI:
    """The application, on services that are running."""
    app = FastAPI(title="Holdfast model pool", version="0.1.0", description=_DESCRIPTION, docs_url=None, redoc_url=None)
    app.state.services = services
    problems.install(app)
    app.add_middleware(middleware.KnownHosts, hosts=services.access.hosts)
    app.add_middleware(middleware.RequestEdge)
    for resource in (model_routes, health, docs):
        app.include_router(resource.router)
    auth.needed(app)
    return app


@asynccontextmanager
async def wire(settings: PoolSettings) -> AsyncIterator[PoolServices]:
    """Read the models, make the pool, and connect.

    Raises:
        ConfigurationError: a file or variable is wrong, or the database's role is not bound by row-level security.
        Unavailable: the database does not answer.
    """
    file = load_models(settings.models, os.environ, allow_demo=settings.environment == "dev")
    for left_out in file.left_out:
        log.info("%s", left_out)
    for warning in file.warnings:
        log.warning("%s", warning)
    database = Database(create_engine(settings.database_url.get_secret_value(), settings.database_pool_size))
    try:
        await database.check_role()
        pool = ModelPool(file.for_router(), file.router_settings, file.litellm_settings)
        for model in pool.unpriced:
            log.warning("%s: no price is known for %s: %s", file.path, model, SET_A_PRICE)

        async def made() -> ModelPool:
            return pool

        slots = TenantSlots(settings.tenant_max_model_calls)
        provider_keys = ProviderKeys(database, settings.keyring)
        async with access(settings, database) as access_:
            models = Models(database, made, file.unusable, provider_keys, slots)
            yield PoolServices(database=database, access=access_, models=models)
    finally:
        await database.close()


async def run(settings: PoolSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in hand end.

    Raises:
        ConfigurationError: a variable or a file is wrong, or the database's role is not bound by row-level security.
        Unavailable: the database does not answer at the start.
    """
    async with wire(settings) as services:
        await serve(create_app(services), settings.pool_host, settings.pool_port)


if __name__ == "__main__":
    with started_with(PoolSettings) as found:
        asyncio.run(run(found))
