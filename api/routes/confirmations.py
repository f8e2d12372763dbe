"""`/v1/confirmations`: what waits for a person, and their decision."""

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Authenticated
from api.problems import documented
from api.routing import resource
from api.shapes import ConfirmationShape, Page, Paging, PathId, QueryId
from api.wiring import services
from holdfast.domain.confirmations import ConfirmationStatus, Decision
from holdfast.services.confirmations import MAX_AT_ONCE, Decided

router = resource("/v1/confirmations", "confirmations")


class ConfirmationsQuery(Paging):
    """Paging, and which confirmations."""

    status: ConfirmationStatus | None = None
    run_id: QueryId | None = None


class DecisionBody(BaseModel):
    """A decision. `arguments_digest` is the confirmation's: it says which arguments you were shown."""

    model_config = ConfigDict(extra="forbid")

    decision: Decision
    arguments_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    reason: str | None = Field(
        default=None,
        max_length=2000,
        pattern=r"^[^\x00]*$",
        description="the model sees it; for respond, it is the answer that the model gets in place of a result",
    )
    arguments: dict[str, Any] | None = Field(default=None, description="the new arguments, for edit")

    def decided(self) -> Decided:
        return Decided(self.decision, self.arguments_digest, self.reason, self.arguments)


class OneDecisionBody(DecisionBody):
    """One decision of several."""

    id: QueryId


class DecisionsBody(BaseModel):
    """Decisions that are made together, or not at all."""

    model_config = ConfigDict(extra="forbid")

    decisions: list[OneDecisionBody] = Field(min_length=1, max_length=MAX_AT_ONCE)


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


@router.post("/{confirmation_id}/decision", responses=documented(409, 412))
async def decide(
    request: Request, caller: Authenticated, confirmation_id: PathId, body: DecisionBody
) -> ConfirmationShape:
    """Decide. 403: not yours to decide. 409: decided otherwise, or expired. 412: not the arguments you were shown."""
    found = await services(request).confirmations.decide(caller, confirmation_id, body.decided())
    return ConfirmationShape.of(found)


@router.post("/decisions", responses=documented(404, 409, 412))
async def decide_several(request: Request, caller: Authenticated, body: DecisionsBody) -> Page[ConfirmationShape]:
    """Decide several confirmations, all of them or none: the first that can't be decided is answered as an error."""
    decisions = [(one.id, one.decided()) for one in body.decisions]
    found = await services(request).confirmations.decide_all(caller, decisions)
    shapes = [ConfirmationShape.of(one) for one in found]
    return Page.of(shapes, len(shapes), [shape.id for shape in shapes])
