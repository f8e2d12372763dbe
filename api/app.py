"""The HTTP API: routes, errors, and what holds for every request."""

from fastapi import FastAPI

from api import middleware, problems
from api.routes import (
    agents,
    budget,
    confirmations,
    conversations,
    health,
    messages,
    models,
    runs,
    switches,
    tool_calls,
)
from api.wiring import Services

_DESCRIPTION = """
Holdfast runs AI agents as durable workflows. Send a message to an agent, read its run, and confirm what it may do.

Authenticate with an API key: `Authorization: Bearer hf_…`. Errors are `application/problem+json` (RFC 9457).
"""


def create_app(services: Services) -> FastAPI:
    """The application, on services that are running."""
    app = FastAPI(title="Holdfast", version="0.1.0", description=_DESCRIPTION)
    app.state.services = services
    problems.install(app)
    app.add_middleware(middleware.RequestEdge)
    for resource in (messages, conversations, runs, tool_calls, confirmations, agents, budget, switches, health):
        app.include_router(resource.router)
    if services.models is not None:
        app.include_router(models.router)
    return app
