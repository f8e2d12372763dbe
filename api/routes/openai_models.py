"""`GET /v1/models`: the agents, as OpenAI's clients list models."""

from typing import Annotated, Literal

from fastapi import Request
from pydantic import BaseModel

from api.auth import needs
from api.openai_route import openai_resource
from api.shapes import PathId
from api.wiring import services
from holdfast.domain.errors import NotFound
from holdfast.domain.permissions import Caller, Permission

router = openai_resource("/v1/models")


class ModelShape(BaseModel):
    """An agent, by its name. `created` is not told, and 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelsShape(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelShape]


_sender = needs(Permission.MESSAGES_SEND)


@router.get("")
async def list_models(request: Request, caller: Annotated[Caller, _sender]) -> ModelsShape:
    """Whom one can talk to."""
    agents = await services(request).agents.newest(caller.tenant_id)
    return ModelsShape(data=[ModelShape(id=spec.name, owned_by=caller.tenant_id) for spec, _ in agents])


@router.get("/{name}")
async def get_model(request: Request, caller: Annotated[Caller, _sender], name: PathId) -> ModelShape:
    """One of them."""
    found = await list_models(request, caller)
    model = next((model for model in found.data if model.id == name), None)
    if model is None:
        raise NotFound("model", name)
    return model
