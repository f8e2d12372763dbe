"""`/v1/keys`: the API keys of the tenant."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import needs
from api.routing import resource
from api.shapes import Page, Paging, PathId
from api.wiring import services
from holdfast.domain.agents import Duration
from holdfast.domain.permissions import Caller, Permission, with_default_roles
from holdfast.domain.principals import ApiKey

router = resource("/v1/keys", "keys")

#: How many roles a key can carry.
MAX_ROLES = 50


class KeyBody(BaseModel):
    """A key to be made. Without a role that gives permissions it gets `client` and `approver`."""

    model_config = ConfigDict(extra="forbid")

    person: str = Field(description="who acts with it")
    roles: list[str] = Field(default_factory=list, max_length=MAX_ROLES)
    expires_in: Duration | None = Field(default=None, description="how long it lasts, like 90d or 12h; null: for ever")


class KeyShape(BaseModel):
    """A key. `status`: active, expired or revoked. `last_used_at` is right to a minute."""

    id: str
    object: Literal["key"] = "key"
    person: str
    roles: list[str]
    status: str
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        shown = {name: value for name, value in vars(key).items() if name in cls.model_fields}
        return cls(id=key.key_id, status=key.status(datetime.now(UTC)), **shown)


class NewKeyShape(KeyShape):
    """A key that was just made. `secret` is the key itself: it is shown this once."""

    secret: str


@router.get("")
async def list_keys(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_READ)], paging: Annotated[Paging, Query()]
) -> Page[KeyShape]:
    """Keys, newest first, without their secrets."""
    keys = services(request).access.keys
    found = await keys.page(caller.tenant_id, after=paging.after, limit=paging.limit + 1)
    return Page.of([KeyShape.of(key) for key in found], paging.limit, [key.key_id for key in found])


@router.post("", status_code=201)
async def create_key(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_MANAGE)], body: KeyBody
) -> NewKeyShape:
    """Make a key of your tenant, with any role. Its secret is shown this once."""
    made = await services(request).access.keys.create(
        caller.tenant_id,
        body.person,
        with_default_roles(body.roles),
        expires_in=body.expires_in,
        created_by=caller.person,
    )
    return NewKeyShape(**KeyShape.of(made.key).model_dump(), secret=made.secret)


@router.delete("/{key_id}")
async def revoke_key(
    request: Request, caller: Annotated[Caller, needs(Permission.KEYS_MANAGE)], key_id: PathId
) -> KeyShape:
    """Revoke a key, for ever. Every process refuses it within 5 seconds."""
    return KeyShape.of(await services(request).access.keys.revoke(caller, key_id))
