"""`/v1/confirmations`: what waits for a person, and their decision."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Authenticated
from api.shapes import ConfirmationShape, Page, Paging, PathId, QueryId
from api.wiring import services
from holdfast.domain.confirmations import ConfirmationStatus, Decision
from holdfast.services.confirmations import Decided

router = APIRouter(prefix="/v1/confirmations", tags=["confirmations"])


class ConfirmationsQuery(Paging):
    """Paging, and which confirmations."""

    status: ConfirmationStatus | None = None
    run_id: QueryId | None = None


class DecisionBody(BaseModel):
    """A decision. `arguments_digest` is the confirmation's: it says which arguments you were shown."""

    model_config = ConfigDict(extra="forbid")

    decision: Decision
    arguments_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    reason: str | None = Field(default=None, max_length=2000, pattern=r"^[^\x00]*$", description="the model sees it")


@router.get("")
async def list_confirmations(
    request: Request, caller: Authenticated, query: Annotated[ConfirmationsQuery, Query()]
) -> Page[ConfirmationShape]:
    """Confirmations, oldest first."""
    found = await services(request).confirmations.page(
        caller.tenant_id, status=query.status, run_id=query.run_id, after=query.after, limit=query.limit + 1
    )
    return Page.of(
        [ConfirmationShape.of(item) for item in found], query.limit, [item.confirmation_id for item in found]
    )


@router.get("/{confirmation_id}")
async def get_confirmation(request: Request, caller: Authenticated, confirmation_id: PathId) -> ConfirmationShape:
    """One confirmation."""
    return ConfirmationShape.of(await services(request).confirmations.get(caller.tenant_id, confirmation_id))


@router.post("/{confirmation_id}/decision")
async def decide(
    request: Request, caller: Authenticated, confirmation_id: PathId, body: DecisionBody
) -> ConfirmationShape:
    """Decide. 409: decided otherwise, or expired. 412: other arguments than those you were shown."""
    decided = Decided(body.decision, body.arguments_digest, caller.person, body.reason)
    return ConfirmationShape.of(
        await services(request).confirmations.decide(caller.tenant_id, confirmation_id, decided)
    )
