"""`/v1/webhooks`: addresses that are told of events, and what was told to them."""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import needs
from api.problems import documented
from api.routing import resource
from api.shapes import Page, Paging, PathId
from api.wiring import services
from holdfast.domain.agents import Duration
from holdfast.domain.deliveries import DELIVERABLE, DeliveryRecord, DeliveryStatus, EventType
from holdfast.domain.permissions import Caller, Permission
from holdfast.services.webhooks import Terms
from holdfast.store.webhooks import Webhook

router = resource("/v1/webhooks", "webhooks")


class WebhookBody(BaseModel):
    """A webhook to be made."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2000, description="https://…; it is sent a signed POST, as Standard Webhooks says")
    events: list[EventType] = Field(
        default_factory=list, max_length=len(DELIVERABLE), description="the types of events; none: every type"
    )

    @property
    def terms(self) -> Terms:
        return Terms(self.url, tuple(self.events))


class WebhookChangeBody(WebhookBody):
    """A webhook as it is to be."""

    enabled: bool = True

    @property
    def terms(self) -> Terms:
        return Terms(self.url, tuple(self.events), self.enabled)


class RotationBody(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid")

    grace_period: Duration = Field(
        default=timedelta(days=1), description="how long the secret before signs too, like 12h; 7d at most"
    )


class WebhookShape(BaseModel):
    """A webhook. `disabled_why` null: it is enabled. `old_secret_until`: until then, the secret before signs too."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    enabled: bool
    disabled_why: str | None
    old_secret_until: datetime | None
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        return cls(
            id=webhook.webhook_id,
            url=webhook.url,
            events=list(webhook.types),
            enabled=webhook.disabled_why is None,
            disabled_why=webhook.disabled_why,
            old_secret_until=webhook.old_until,
            created_by=webhook.created_by,
            created_at=webhook.created_at,
        )


class WebhookSecretShape(WebhookShape):
    """A webhook whose secret was just made. `secret` verifies what comes: it is shown this once."""

    secret: str


class DeliveryShape(BaseModel):
    """An event that a webhook was told, or is to be. `id` is the `webhook-id`, in every attempt and every replay.

    `attempts`: since it was last replayed. `next_attempt_at` null: it is tried now, or settled.
    """

    id: str
    object: Literal["delivery"] = "delivery"
    webhook_id: str
    run_id: str
    seq: int
    type: str
    status: str
    attempts: int
    replays: int
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    settled_at: datetime | None

    @classmethod
    def of(cls, delivery: DeliveryRecord) -> Self:
        shown = {name: value for name, value in vars(delivery).items() if name in cls.model_fields}
        return cls(id=delivery.delivery_id, webhook_id=delivery.target_id, **shown)


class DeliveryPaging(Paging):
    """The parameters of the list of deliveries."""

    status: DeliveryStatus | None = Query(None, description="only those that stand so")


@router.get("")
async def list_webhooks(
    request: Request, caller: Annotated[Caller, needs(Permission.WEBHOOKS_READ)], paging: Annotated[Paging, Query()]
) -> Page[WebhookShape]:
    """Webhooks, newest first, without their secrets."""
    found = await services(request).webhooks.page(caller.tenant_id, after=paging.after, limit=paging.limit + 1)
    return Page.of([WebhookShape.of(one) for one in found], paging.limit, [one.webhook_id for one in found])


@router.post("", status_code=201, responses=documented(409))
async def create_webhook(
    request: Request, caller: Annotated[Caller, needs(Permission.WEBHOOKS_MANAGE)], body: WebhookBody
) -> WebhookSecretShape:
    """Have an address told of events from now on. The secret that signs is shown this once."""
    made = await services(request).webhooks.create(caller, body.terms)
    return WebhookSecretShape(**WebhookShape.of(made.webhook).model_dump(), secret=made.secret)


@router.get("/{webhook_id}")
async def get_webhook(
    request: Request, caller: Annotated[Caller, needs(Permission.WEBHOOKS_READ)], webhook_id: PathId
) -> WebhookShape:
    """A webhook, without its secret."""
    return WebhookShape.of(await services(request).webhooks.get(caller.tenant_id, webhook_id))


@router.put("/{webhook_id}")
async def put_webhook(
    request: Request,
    caller: Annotated[Caller, needs(Permission.WEBHOOKS_MANAGE)],
    webhook_id: PathId,
    body: WebhookChangeBody,
) -> WebhookShape:
    """Change where a webhook goes and what it is told; enable it again, or disable it."""
    return WebhookShape.of(await services(request).webhooks.put(caller, webhook_id, body.terms))


@router.delete("/{webhook_id}", status_code=204)
async def delete_webhook(
    request: Request, caller: Annotated[Caller, needs(Permission.WEBHOOKS_MANAGE)], webhook_id: PathId
) -> None:
    """Delete a webhook, with what it was told and was to be told."""
    await services(request).webhooks.remove(caller, webhook_id)


@router.post("/{webhook_id}/rotation")
async def rotate_secret(
    request: Request,
    caller: Annotated[Caller, needs(Permission.WEBHOOKS_MANAGE)],
    webhook_id: PathId,
    body: RotationBody,
) -> WebhookSecretShape:
    """Give a webhook another secret, shown this once. For the grace period, the one before signs too."""
    made = await services(request).webhooks.rotate(caller, webhook_id, body.grace_period)
    return WebhookSecretShape(**WebhookShape.of(made.webhook).model_dump(), secret=made.secret)


@router.get("/{webhook_id}/deliveries")
async def list_deliveries(
    request: Request,
    caller: Annotated[Caller, needs(Permission.WEBHOOKS_READ)],
    webhook_id: PathId,
    paging: Annotated[DeliveryPaging, Query()],
) -> Page[DeliveryShape]:
    """What a webhook was told, and is to be told, newest first."""
    found = await services(request).webhooks.deliveries(
        caller.tenant_id, webhook_id, status=paging.status, after=paging.after, limit=paging.limit + 1
    )
    return Page.of([DeliveryShape.of(one) for one in found], paging.limit, [one.delivery_id for one in found])


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay", responses=documented(409))
async def replay_delivery(
    request: Request,
    caller: Annotated[Caller, needs(Permission.WEBHOOKS_MANAGE)],
    webhook_id: PathId,
    delivery_id: PathId,
) -> DeliveryShape:
    """Tell a delivery again, under the same `webhook-id`, whatever became of it; one that waits is told at once."""
    return DeliveryShape.of(await services(request).webhooks.replay(caller, webhook_id, delivery_id))
