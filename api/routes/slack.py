"""`/slack/events` and `/slack/interactions`: Slack's own requests, which it signs."""

from fastapi import APIRouter, Request, Response

from api.wiring import slack
from holdfast.domain.errors import Unauthenticated

router = APIRouter(prefix="/slack")


@router.post("/events", include_in_schema=False)
@router.post("/interactions", include_in_schema=False)
async def receive(request: Request) -> Response:
    """Let Slack in."""
    found, access = slack(request)
    try:
        answer = await found.dispatch(request.headers, await request.body())
    except Unauthenticated:
        access.limits.count_failure(request.client.host if request.client else "")
        raise
    return Response(answer.body, answer.status, answer.first_headers_without_set_cookie())
