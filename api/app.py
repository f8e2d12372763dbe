"""The HTTP API: routes, errors, and what holds for every request."""

from fastapi import FastAPI

from api import auth, middleware, problems
from api.codec_edge import CodecEdge
from api.routes import (
    agents,
    agui,
    audit,
    budget,
    chat,
    chat_completions,
    codec,
    confirmations,
    conversations,
    docs,
    health,
    identities,
    keys,
    messages,
    models,
    openai_models,
    provider_keys,
    responses,
    runs,
    slack,
    switches,
    tool_calls,
    webhooks,
)
from api.wiring import Services

_DESCRIPTION = """
Holdfast runs AI agents as durable workflows. Send a message to an agent, read its run, and confirm what it may do.

Authenticate with an API key: `Authorization: Bearer hf_…`. Errors are `application/problem+json` (RFC 9457).
"""

#: What the API always serves; the models only where it is told of a models file, Slack where that is set up.
RESOURCES = (
    *(messages, conversations, runs, tool_calls, confirmations, agents, budget, audit),
    *(responses, chat_completions, openai_models),
    *(agui, chat),
    *(keys, identities, provider_keys, webhooks, switches, codec, health),
)


def create_app(services: Services) -> FastAPI:
    """The application, on services that are running."""
    app = FastAPI(title="Holdfast", version="0.1.0", description=_DESCRIPTION, docs_url=None, redoc_url=None)
    app.state.services = services
    problems.install(app)
    app.add_middleware(CodecEdge, ui_url=services.temporal_ui_url)
    app.add_middleware(middleware.KnownHosts, hosts=services.access.hosts)
    app.add_middleware(middleware.RequestEdge)
    for resource in RESOURCES:
        app.include_router(resource.router)
    app.include_router(docs.router)
    if services.models is not None:
        app.include_router(models.router)
    if services.slack is not None:
        app.include_router(slack.router)
    auth.needed(app)
    return app
