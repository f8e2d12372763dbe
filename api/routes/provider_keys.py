"""`/v1/provider-keys`: the tenant's own keys of model providers. None is ever shown."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Path, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from api.auth import needs
from api.routing import resource
from api.shapes import Page
from api.wiring import services
from holdfast.domain.permissions import Caller, Permission
from holdfast.store.provider_keys import SealedKey

router = resource("/v1/provider-keys", "provider keys")

#: A provider as LiteLLM calls it, or as `model_info.provider` of models.yaml does.
Provider = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ProviderKeyBody(BaseModel):
    """A key."""

    model_config = ConfigDict(extra="forbid")

    key: SecretStr = Field(min_length=8, max_length=4096, description="visible characters of ASCII")


class ProviderKeyShape(BaseModel):
    """What is shown of a key. `hint`: its last four characters; of a short one, none."""

    object: Literal["provider_key"] = "provider_key"
    provider: str
    hint: str
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, key: SealedKey) -> Self:
        return cls(provider=key.provider, hint=key.hint, created_by=key.created_by, created_at=key.created_at)


@router.get("")
async def list_provider_keys(
    request: Request, caller: Annotated[Caller, needs(Permission.PROVIDER_KEYS_READ)]
) -> Page[ProviderKeyShape]:
    """The providers of which the tenant has a key of its own."""
    found = [ProviderKeyShape.of(key) for key in await services(request).provider_keys.all_of(caller.tenant_id)]
    return Page.of(found, max(len(found), 1), [key.provider for key in found])


@router.get("/{provider}")
async def get_provider_key(
    request: Request, caller: Annotated[Caller, needs(Permission.PROVIDER_KEYS_READ)], provider: Provider
) -> ProviderKeyShape:
    """What can be shown of the tenant's key of a provider."""
    return ProviderKeyShape.of(await services(request).provider_keys.get(caller.tenant_id, provider))


@router.put("/{provider}")
async def put_provider_key(
    request: Request,
    caller: Annotated[Caller, needs(Permission.PROVIDER_KEYS_MANAGE)],
    provider: Provider,
    body: ProviderKeyBody,
) -> ProviderKeyShape:
    """Set the tenant's own key of a provider: within seconds, its calls of that provider are made with it."""
    key = await services(request).provider_keys.put(caller, provider, body.key.get_secret_value())
    return ProviderKeyShape.of(key)


@router.delete("/{provider}", status_code=204)
async def delete_provider_key(
    request: Request, caller: Annotated[Caller, needs(Permission.PROVIDER_KEYS_MANAGE)], provider: Provider
) -> None:
    """Remove the tenant's own key of a provider: within seconds, its calls are made with the deployment's."""
    await services(request).provider_keys.remove(caller, provider)
