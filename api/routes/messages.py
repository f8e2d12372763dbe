"""`POST /v1/messages`: send a message to an agent."""

from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Authenticated
from api.problems import documented
from api.routing import resource
from api.shapes import RunShape
from api.wiring import services
from holdfast.domain.errors import InvalidInput
from holdfast.domain.messages import NewMessage
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


@router.post(
    "/messages",
    status_code=202,
    response_model=None,
    responses={200: {"model": RunShape}, 202: {"model": AcceptedShape}, **documented(404, 409)},
)
async def send_message(
    request: Request,
    response: Response,
    caller: Authenticated,
    body: MessageBody,
    idempotency_key: Annotated[str | None, Header()] = None,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the reply")] = 0,
) -> AcceptedShape | RunShape:
    """Accept a message: 202 once it is stored, or, with `?wait=`, 200 with the run when it has ended by then.

    A run that needs a person's confirmation is answered with 202 at once. 409: the conversation is busy, and its agent
    takes no message meanwhile. A message that joined an earlier run (`merged`) is answered by that one.
    """
    message = NewMessage(
        agent=body.agent,
        text=body.text,
        conversation_id=body.conversation_id,
        sender=body.sender,
        metadata=body.metadata,
        key=_key(idempotency_key, body.message_id),
    )
    found = services(request)
    accepted = await found.messages.accept(caller, message)
    status = accepted.status
    if wait or not accepted.is_new:
        status = await found.runs.wait(caller.tenant_id, accepted.run_id, wait)
    if wait and status not in OPEN:
        response.status_code = 200
        return RunShape.of(await found.runs.answering(caller.tenant_id, accepted.run_id), found)
    return AcceptedShape(
        message_id=accepted.message_id,
        run_id=accepted.run_id,
        conversation_id=accepted.conversation_id,
        status=status,
        accepted=accepted.is_new,
    )


def _key(header: str | None, message_id: str | None) -> str | None:
    if header is not None and message_id is not None and header != message_id:
        raise InvalidInput("message_id", "Idempotency-Key and message_id differ; send one of them, or both alike.")
    return header if header is not None else message_id
