"""`/v1/agents`: the agents of a tenant."""

from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel

from api.auth import Authenticated
from api.routing import resource
from api.shapes import Page, PathId
from api.wiring import services
from holdfast.domain.agents import AgentSpec
from holdfast.domain.errors import InvalidInput

router = resource("/v1/agents", "agents")


class AgentShape(BaseModel):
    """An agent in its newest version."""

    name: str
    object: Literal["agent"] = "agent"
    version: int
    spec: dict[str, Any]


@router.get("")
async def list_agents(request: Request, caller: Authenticated) -> Page[AgentShape]:
    """Every agent, by name."""
    found = await services(request).agents.newest(caller.tenant_id)
    shapes = [_shape(spec, version) for spec, version in found]
    return Page.of(shapes, max(len(shapes), 1), [shape.name for shape in shapes])


@router.put("/{name}")
async def apply_agent(request: Request, caller: Authenticated, name: PathId, spec: AgentSpec) -> AgentShape:
    """Apply an agent: a change makes a new version, which new messages use; the same again changes nothing."""
    if spec.name != name:
        raise InvalidInput("name", f"The body is the agent {spec.name!r}, the path names {name!r}.")
    return _shape(spec, await services(request).agents.apply(caller.tenant_id, spec))


def _shape(spec: AgentSpec, version: int) -> AgentShape:
    return AgentShape(name=spec.name, version=version, spec=spec.model_dump(mode="json"))
