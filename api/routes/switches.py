"""`/v1/switches`: the kill switch of the tenant and of its agents."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Path, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import needs
from api.routing import resource
from api.wiring import services
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.switches import Scope, Switch
from holdfast.services.switches import MAX_REASON_CHARACTERS

router = resource("/v1/switches", "switches")

ScopePath = Annotated[str, Path(max_length=80, description="`tenant`, or `agent:NAME`")]


class SwitchBody(BaseModel):
    """Why. Whoever sends a message meanwhile reads it."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=MAX_REASON_CHARACTERS)


class SwitchShape(BaseModel):
    """A switch. `scope`: `tenant`, `agent:NAME`, or `all`, which only the operator of the installation throws."""

    object: Literal["switch"] = "switch"
    scope: str
    reason: str
    thrown_by: str
    thrown_at: datetime

    @classmethod
    def of(cls, switch: Switch) -> Self:
        return cls(
            scope=str(switch.scope), reason=switch.reason, thrown_by=switch.thrown_by, thrown_at=switch.thrown_at
        )


class SwitchesShape(BaseModel):
    """Every switch that stops something of the tenant."""

    object: Literal["list"] = "list"
    data: list[SwitchShape]


@router.get("")
async def list_switches(request: Request, caller: Annotated[Caller, needs(Permission.SWITCHES_READ)]) -> SwitchesShape:
    """The switches that are thrown."""
    thrown = await services(request).switches.thrown(caller.tenant_id)
    return SwitchesShape(data=[SwitchShape.of(switch) for switch in thrown])


@router.get("/{scope}")
async def get_switch(
    request: Request, caller: Annotated[Caller, needs(Permission.SWITCHES_READ)], scope: ScopePath
) -> SwitchShape:
    """A switch. 404: it is not thrown."""
    return SwitchShape.of(await services(request).switches.get(Scope.read(caller.tenant_id, scope)))


@router.put("/{scope}")
async def throw_switch(
    request: Request, caller: Annotated[Caller, needs(Permission.SWITCHES_USE)], scope: ScopePath, body: SwitchBody
) -> SwitchShape:
    """Throw a switch: new messages are refused (503, `Stopped`), and what runs is stopped within five seconds."""
    found = services(request)
    switch = await found.switches.throw(Scope.read(caller.tenant_id, scope), body.reason, caller.person)
    found.stopper.look()
    return SwitchShape.of(switch)


@router.delete("/{scope}")
async def lift_switch(
    request: Request, caller: Annotated[Caller, needs(Permission.SWITCHES_USE)], scope: ScopePath
) -> SwitchShape:
    """Lift a switch; answers with it as it was. What it stopped stays stopped. 404: it is not thrown."""
    found = services(request)
    return SwitchShape.of(await found.switches.lift(Scope.read(caller.tenant_id, scope), caller.person))
