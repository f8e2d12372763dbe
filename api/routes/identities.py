"""`/v1/identities`: which keys, tokens and accounts are the same person's."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict

from api.auth import needs
from api.problems import documented
from api.routing import resource
from api.shapes import Page
from api.wiring import services
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.principals import Identity, IdentityKind

router = resource("/v1/identities", "keys")


class IdentityBody(BaseModel):
    """An identity: a key by its id, a token by its subject, an account of Slack."""

    model_config = ConfigDict(extra="forbid")

    kind: IdentityKind
    subject: str


class LinkBody(IdentityBody):
    """An identity, and the principal that is to act with it. `roles`: of an account of Slack alone."""

    principal: str
    roles: list[str] = []


class IdentityShape(BaseModel):
    """An identity that is linked to a principal."""

    object: Literal["identity"] = "identity"
    kind: IdentityKind
    subject: str
    principal: str
    roles: list[str]
    created_at: datetime

    @classmethod
    def of(cls, identity: Identity) -> Self:
        return cls(**{**vars(identity), "roles": list(identity.roles)})


@router.get("")
async def list_identities(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_READ)]
) -> Page[IdentityShape]:
    """Every identity that is linked, by principal."""
    found = await services(request).principals.identities(caller.tenant_id)
    shapes = [IdentityShape.of(identity) for identity in found]
    return Page.of(shapes, max(len(shapes), 1), [f"{shape.kind}:{shape.subject}" for shape in shapes])


@router.put("", responses=documented(404))
async def link_identity(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_MANAGE)], body: LinkBody
) -> IdentityShape:
    """Have an identity act as a principal, in place of any that it acts as now. Holds everywhere within 5 seconds."""
    linked = await services(request).principals.link(caller, body.kind, body.subject, body.principal, body.roles)
    return IdentityShape.of(linked)


@router.delete("", responses=documented(404))
async def unlink_identity(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_MANAGE)], query: Annotated[IdentityBody, Query()]
) -> IdentityShape:
    """Have an identity act for itself again; answers with the link that was."""
    return IdentityShape.of(await services(request).principals.unlink(caller, query.kind, query.subject))
