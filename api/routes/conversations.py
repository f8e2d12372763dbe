"""`GET /v1/conversations/{id}/messages`: the transcript."""

from typing import Annotated

from fastapi import Query, Request

from api.auth import Authenticated
from api.routing import resource
from api.shapes import MessageShape, Page, Paging, PathId
from api.wiring import services

router = resource("/v1/conversations", "conversations")


@router.get("/{conversation_id}/messages")
async def list_messages(
    request: Request, caller: Authenticated, conversation_id: PathId, paging: Annotated[Paging, Query()]
) -> Page[MessageShape]:
    """A conversation's messages, oldest first."""
    found = await services(request).messages.in_conversation(
        caller.tenant_id, conversation_id, after=paging.after, limit=paging.limit + 1
    )
    return Page.of([MessageShape.of(item) for item in found], paging.limit, [item.message_id for item in found])
