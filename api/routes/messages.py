"""`POST /v1/messages`: send a message to an agent."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from api.auth import needs
from api.event_stream import MEDIA, ResumedAfter, StreamRoute, as_sse, unaltered
from api.open_streams import Stream
from api.problems import documented
from api.routing import resource
from api.shapes import RunShape
from api.wiring import services
from holdfast.domain.errors import InvalidInput
from holdfast.domain.events import LoggedEvent
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import OPEN

router = resource("/v1", "messages")

#: The longest a request may wait for a reply, in seconds; proxies commonly cut at 60.
MAX_WAIT_S = 55.0


class MessageBody(BaseModel):
    """A message. `message_id` is your own id of it: like `Idempotency-Key`, it makes the message accepted once."""

    model_config = ConfigDict(extra="forbid")

    agent: str
    text: str
    conversation_id: str | None = None
    message_id: str | None = Field(default=None, description="the same as Idempotency-Key")
    sender: str | None = Field(
        default=None, min_length=1, max_length=255, description="who wrote it, if not the key's person"
    )
    metadata: dict[str, Any] = Field(default_factory=dict)


class AcceptedShape(BaseModel):
    """The message is stored and will be answered. `accepted` false: this delivery repeats one accepted before."""

    message_id: str
    run_id: str
    conversation_id: str
    status: str
    accepted: bool


_sender = needs(Permission.MESSAGES_SEND)


async def _accepted(
    request: Request,
    caller: Annotated[Caller, _sender],
    stream: Stream,
    body: MessageBody,
    after: ResumedAfter,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> AsyncIterator[AsyncIterator[LoggedEvent]]:
    found = services(request)
    stream.open()
    accepted = await found.messages.accept(caller, _as_message(body, idempotency_key))
    run_id = accepted.run_id
    async with found.events.following(caller, run_id, after=after, may_go_on=stream.may_go_on) as events:
        yield events


async def send_message_and_stream(
    events: Annotated[AsyncIterator[LoggedEvent], Depends(_accepted)],
) -> AsyncIterator[ServerSentEvent]:
    """Accept a message, and answer with what happens in its run."""
    async for event in as_sse(events):
        yield event


# Before the route of the same path, which is for all others, and documents both.
router.add_api_route(
    "/messages",
    send_message_and_stream,
    methods=["POST"],
    response_class=EventSourceResponse,
    dependencies=[_sender, Depends(unaltered)],
    include_in_schema=False,
    route_class_override=StreamRoute,
)


@router.post(
    "/messages",
    status_code=202,
    response_model=None,
    responses={
        200: {"model": RunShape, "content": MEDIA},
        202: {"model": AcceptedShape},
        **documented(404, 409, 410),
    },
)
async def send_message(
    request: Request,
    response: Response,
    caller: Annotated[Caller, _sender],
    body: MessageBody,
    idempotency_key: Annotated[str | None, Header()] = None,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the reply")] = 0,
) -> AcceptedShape | RunShape:
    """Accept a message: 202 once it is stored, or, with `?wait=`, 200 with the run when it has ended by then.

    A run that needs a person's confirmation is answered with 202 at once. 409: the conversation is busy, and its agent
    takes no message meanwhile. A message that joined an earlier run (`merged`) is answered by that one; whoever may not
    read it gets the message's own run, with the reply, and as that one ended.

    With `Accept: text/event-stream`, 200 and what happens in the run, as `GET /v1/runs/{id}/events` tells it; the first
    event, `run.queued` or `run.merged`, has the ids. Sent again with the same key and `Last-Event-ID`, it goes on; 410:
    the run ended so long ago that its events are not kept any more.
    """
    found = services(request)
    accepted = await found.messages.accept(caller, _as_message(body, idempotency_key))
    status = accepted.status
    if wait or not accepted.is_new:
        status = await found.runs.wait(caller, accepted.run_id, wait)
    if wait and status not in OPEN:
        response.status_code = 200
        return RunShape.of(await found.runs.answering(caller, accepted.run_id), found)
    return AcceptedShape(
        message_id=accepted.message_id,
        run_id=accepted.run_id,
        conversation_id=accepted.conversation_id,
        status=status,
        accepted=accepted.is_new,
    )


def _as_message(body: MessageBody, idempotency_key: str | None) -> NewMessage:
    return NewMessage(
        agent=body.agent,
        text=body.text,
        conversation_id=body.conversation_id,
        sender=body.sender,
        metadata=body.metadata,
        key=_key(idempotency_key, body.message_id),
    )


def _key(header: str | None, message_id: str | None) -> str | None:
    if header is not None and message_id is not None and header != message_id:
        raise InvalidInput("message_id", "Idempotency-Key and message_id differ; send one of them, or both alike.")
    return header if header is not None else message_id
