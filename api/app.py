"""The HTTP API: routes, errors, and what holds for every request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import middleware, problems, wiring
from api.routes import agents, confirmations, conversations, health, messages, runs
from holdfast.config.settings import ApiSettings

_DESCRIPTION = """
Holdfast runs AI agents as durable workflows. Send a message to an agent, read its run, and confirm what it may do.

Authenticate with an API key: `Authorization: Bearer hf_…`. Errors are `application/problem+json` (RFC 9457).
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """The application; its services are made when it starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with wiring.wire(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(title="Holdfast", version="0.1.0", description=_DESCRIPTION, lifespan=lifespan)
    problems.install(app)
    app.add_middleware(middleware.RequestEdge)
    for resource in (messages, conversations, runs, confirmations, agents, health):
        app.include_router(resource.router)
    return app
