"""`POST /agui/{agent}`: an agent for clients that speak AG-UI, such as `@ag-ui/client` and CopilotKit."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from ag_ui.core import AssistantMessage, BaseEvent, Message, ResumeEntry, RunAgentInput, TextPart, UserMessage
from fastapi import Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from api import approvals
from api.auth import needs
from api.chat_stream import read
from api.event_stream import unaltered
from api.open_streams import OpenStream, Stream
from api.problems import documented
from api.projections.agui import AgUiRun
from api.routing import resource
from api.shapes import PathId
from api.wiring import Services, services
from holdfast.domain.confirmations import Decision
from holdfast.domain.errors import InvalidInput
from holdfast.domain.ids import is_conversation_id
from holdfast.domain.permissions import Caller, Permission
from holdfast.services.confirmations import Decided
from holdfast.services.threads import Answer, answer, conversation_named, message_in_thread

router = resource("/agui", "chat clients")

_VIA = "ag-ui"

# All else in the history is the client's picture of what stands on our side.
_NOTHING_NEW = "The last message must be the user's: it is the one that is new."


class RunBody(RunAgentInput):
    """`RunAgentInput` of AG-UI 1.0. `state`, `context` and `forwardedProps` are not used."""

    # Documented by name: AG-UI's own page says all of it, and of most of it nothing is read.
    messages: Annotated[
        list[Message], WithJsonSchema({"type": "array", "items": {"type": "object", "title": "Message"}})
    ]
    tools: list[Any] | None = None
    thread_id: str = Field(min_length=1, max_length=255)
    run_id: str = Field(min_length=1, max_length=255)


class _Payload(BaseModel):
    """What an interrupt is answered with: see `RESPONSE_SCHEMA`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    approved: bool
    reason: str | None = Field(default=None, max_length=2000, pattern=r"^[^\x00]*$")
    editedArgs: dict[str, Any] | None = None

    def decision(self) -> Decision:
        if not self.approved:
            return Decision.REJECT
        return Decision.APPROVE if self.editedArgs is None else Decision.EDIT


_sender = needs(Permission.MESSAGES_SEND)


async def _told(
    request: Request, caller: Annotated[Caller, _sender], stream: Stream, agent: PathId, body: RunBody
) -> AsyncIterator[AsyncIterator[BaseEvent]]:
    found = services(request)
    stream.open()
    if body.tools:
        raise InvalidInput("tools", "Tools of the client are not offered to the agent here; send none.")
    conversation_id = conversation_named(caller, body.thread_id)
    if body.resume:
        answers = [_answer(place, entry) for place, entry in enumerate(body.resume)]
        run_id = await answer(found.confirmations, caller, conversation_id, answers, _VIA)
        projection = AgUiRun(body, [given.confirmation_id for given in answers])
    else:
        run_id = await _accept(found, caller, agent, body)
        projection = AgUiRun(body)
    # Whoever may send and not read is told so by a status.
    await found.runs.wait(caller, run_id, 0)
    async with aclosing(_events(found, stream, run_id, conversation_id, projection)) as events:
        yield events


async def _accept(found: Services, caller: Caller, agent: str, body: RunBody) -> str:
    said = next((one for one in reversed(body.messages) if isinstance(one, UserMessage)), None)
    if said is None:
        raise InvalidInput("messages", _NOTHING_NEW)
    message = message_in_thread(caller, agent, body.thread_id, _text(said), body.run_id, shown=_shown(body))
    if said is body.messages[-1]:
        may_begin = not is_conversation_id(body.thread_id)
        return (await found.messages.accept(caller, message, may_begin=may_begin)).run_id
    # A run that is asked for again has left a part of its answer in the client's history.
    accepted = await found.messages.accepted_before(caller, message)
    if accepted is None:
        raise InvalidInput("messages", _NOTHING_NEW)
    return accepted.run_id


async def _events(
    found: Services, stream: OpenStream, run_id: str, conversation_id: str, projection: AgUiRun
) -> AsyncGenerator[BaseEvent]:
    for event in projection.begin(run_id, conversation_id):
        yield event
    async for event in read(found, stream, run_id, projection):
        yield event


def _shown(body: RunBody) -> list[str] | None:
    answers = [one for one in body.messages if isinstance(one, AssistantMessage)]
    return [call.id for one in answers for call in one.tool_calls or ()] if answers else None


def _text(said: UserMessage) -> str:
    if isinstance(said.content, str):
        return said.content
    texts = [part.text for part in said.content if isinstance(part, TextPart)]
    if len(texts) < len(said.content):
        raise InvalidInput("messages", "A message may have text only.")
    return "\n".join(texts)


def _answer(place: int, entry: ResumeEntry) -> Answer:
    confirmation_id, digest = approvals.named(entry.interrupt_id)
    if entry.status == "cancelled":
        return Answer(confirmation_id, digest, None)
    try:
        payload = _Payload.model_validate(entry.payload)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, ("resume", place, "payload", *wrong["loc"])))
        raise InvalidInput(where, f"It does not fit the interrupt's responseSchema: {wrong['msg']}.") from None
    decided = Decided(payload.decision(), digest, payload.reason, payload.editedArgs, via=_VIA)
    return Answer(confirmation_id, digest, decided)


@router.post(
    "/{agent}",
    response_class=EventSourceResponse,
    dependencies=[_sender, Depends(unaltered)],
    responses=documented(409, 412),
)
async def run_agent(events: Annotated[AsyncIterator[BaseEvent], Depends(_told)]) -> AsyncIterator[ServerSentEvent]:
    """Run an agent as AG-UI 1.0 says, or resume it with answers to its interrupts.

    `threadId` is your own name of a conversation, or the id of one; `runId` makes a message accepted once. Of
    `messages` only the last one is read, which is the user's: the history stands on our side. See
    `docs/how-to/web-clients.md`.
    """
    async for event in events:
        yield ServerSentEvent(raw_data=event.model_dump_json(by_alias=True))
