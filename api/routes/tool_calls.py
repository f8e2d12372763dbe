"""`/v1/tool-calls`: the effect ledger, and what a person says of a call whose outcome is unknown."""

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Authenticated
from api.problems import documented
from api.routing import resource
from api.shapes import Page, Paging, PathId, ToolCallShape
from api.wiring import services
from holdfast.domain.confirmations import Resolution
from holdfast.domain.tools import ToolCallStatus
from holdfast.services.tool_calls import MAX_EVIDENCE_CHARACTERS, Resolved

router = resource("/v1/tool-calls", "tool calls")


class ToolCallsQuery(Paging):
    """Paging, and which calls."""

    status: ToolCallStatus | None = None


class ResolutionBody(BaseModel):
    """What became of a call. `result` is what the model sees of one that was committed."""

    model_config = ConfigDict(extra="forbid")

    outcome: Resolution
    evidence: str = Field(
        min_length=1, max_length=MAX_EVIDENCE_CHARACTERS, pattern=r"^[^\x00]*$", description="how you know"
    )
    result: Any = None


@router.get("")
async def list_tool_calls(
    request: Request, caller: Authenticated, query: Annotated[ToolCallsQuery, Query()]
) -> Page[ToolCallShape]:
    """Tool calls, oldest first."""
    found = await services(request).tool_calls.page(
        caller.tenant_id, status=query.status, after=query.after, limit=query.limit + 1
    )
    return Page.of([ToolCallShape.of(call) for call in found], query.limit, [call.tool_call_id for call in found])


@router.get("/{tool_call_id}")
async def get_tool_call(request: Request, caller: Authenticated, tool_call_id: PathId) -> ToolCallShape:
    """One tool call."""
    return ToolCallShape.of(await services(request).tool_calls.get(caller.tenant_id, tool_call_id))


@router.post("/{tool_call_id}/resolution", responses=documented(409))
async def resolve(request: Request, caller: Authenticated, tool_call_id: PathId, body: ResolutionBody) -> ToolCallShape:
    """Settle an unknown outcome. 403: not yours to decide. 409: it is not unknown, or can't run again any more."""
    resolved = Resolved(body.outcome, body.evidence, body.result)
    return ToolCallShape.of(await services(request).tool_calls.resolve(caller, tool_call_id, resolved))
