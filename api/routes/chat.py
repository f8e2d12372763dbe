"""`POST /api/chat`: an agent for clients of the Vercel AI SDK (`useChat`), which speak its UI message stream."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from api import approvals
from api.auth import needs
from api.chat_stream import read
from api.event_stream import unaltered
from api.open_streams import Stream
from api.problems import documented
from api.projections.ui_messages import Chunk, UiMessage
from api.routing import resource
from api.wiring import Services, services
from holdfast.domain.confirmations import Decision
from holdfast.domain.errors import InvalidInput
from holdfast.domain.ids import is_conversation_id
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import OPEN
from holdfast.services.confirmations import Decided
from holdfast.services.threads import Answer, answer, conversation_named, message_in_thread

router = resource("/api/chat", "chat clients")

_VIA = "ui-messages"

_EDITED = "What was said stands: a message can't be edited, nor an answer be made anew. Send a new message."


class ChatMessage(BaseModel):
    """A message as the client has it; of most of them nothing is read."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1, max_length=255)
    role: str
    parts: list[dict[str, Any]] = Field(default_factory=list)


class ChatBody(BaseModel):
    """What `DefaultChatTransport` sends. `agent`: add it by the transport's `body`, or to the URL as `?agent=`."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1, max_length=255, description="your own name of a conversation, or the id of one")
    messages: list[ChatMessage] = Field(min_length=1)
    agent: str | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: str | None = None


class ResumeQuery(BaseModel):
    """What is to be told again."""

    model_config = ConfigDict(extra="forbid")

    ended: bool = Field(default=False, description="true: the newest answer also if it has ended since")


_sender = needs(Permission.MESSAGES_SEND)
_reader = needs(Permission.RUNS_READ)


def marked(response: Response) -> None:
    """Say which protocol this is."""
    response.headers["x-vercel-ai-ui-message-stream"] = "v1"


async def _told(
    request: Request,
    caller: Annotated[Caller, _sender],
    stream: Stream,
    body: ChatBody,
    agent: Annotated[str | None, Query(description="which agent, if the body does not say it")] = None,
) -> AsyncIterator[AsyncIterator[Chunk]]:
    found = services(request)
    stream.open()
    message = _addressed(body)
    if message.role == "user":
        run_id = await _accept(found, caller, body, _agent(body.agent, agent))
        projection = UiMessage(run_id)
    else:
        answers = _answers(message)
        run_id = await answer(found.confirmations, caller, conversation_named(caller, body.id), answers, _VIA)
        # The message goes on, by whichever id the client has it.
        projection = UiMessage(message.id, [given.confirmation_id for given in answers])
    # Whoever may send and not read is told so by a status.
    await found.runs.wait(caller, run_id, 0)
    async with aclosing(read(found, stream, run_id, projection)) as chunks:
        yield chunks


def _addressed(body: ChatBody) -> ChatMessage:
    """The message that the request is about: a new one of the user, or one of ours with answers in it."""
    last = body.messages[-1]
    named = next((one for one in body.messages if one.id == body.messageId), None)
    if body.trigger != "submit-message" or (named is not None and named.role == "user"):
        raise InvalidInput("messageId", _EDITED)
    return last if named is None or last.role == "user" else named


async def _accept(found: Services, caller: Caller, body: ChatBody, agent: str) -> str:
    last = body.messages[-1]
    message = message_in_thread(caller, agent, body.id, _text(last), last.id, shown=_shown(body))
    accepted = await found.messages.accept(caller, message, may_begin=not is_conversation_id(body.id))
    return accepted.run_id


def _shown(body: ChatBody) -> list[str] | None:
    answers = [one for one in body.messages if one.role == "assistant"]
    return [str(part.get("toolCallId")) for one in answers for part in one.parts] if answers else None


def _agent(in_body: str | None, in_query: str | None) -> str:
    if in_body is None and in_query is None:
        raise InvalidInput("agent", "Say which agent: `agent` in the body, or `?agent=`.")
    if in_body is not None and in_query is not None and in_body != in_query:
        raise InvalidInput("agent", "The body and the query name different agents.")
    return in_body or in_query or ""


def _text(message: ChatMessage) -> str:
    texts = [part.get("text") for part in message.parts if part.get("type") == "text"]
    if len(texts) < len(message.parts) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("messages", "A message may have text only.")
    return "\n".join(map(str, texts))


def _answers(message: ChatMessage) -> list[Answer]:
    """What the person says to what was asked in a message. Whether they may, and were asked so, our record says."""
    answered = [part for part in message.parts if part.get("state") == "approval-responded"]
    if message.role != "assistant" or not answered:
        raise InvalidInput("messages", "There is nothing new: the last message is neither the user's nor has answers.")
    return [_answer(part.get("approval")) for part in answered]


def _answer(approval: Any) -> Answer:
    match approval:
        case {"id": str(key), "approved": bool(approved)} if isinstance(approval.get("reason"), str | None):
            confirmation_id, digest = approvals.named(key)
            decision = Decision.APPROVE if approved else Decision.REJECT
            decided = Decided(decision, digest, _reason(approval.get("reason")), via=_VIA)
            return Answer(confirmation_id, digest, decided)
    raise InvalidInput("messages", "An answered approval has an `id`, `approved` and perhaps a `reason`.")


def _reason(given: str | None) -> str | None:
    if given is not None and (len(given) > 2000 or "\x00" in given):
        raise InvalidInput("messages", "The reason of an approval has at most 2000 characters, and no NUL.")
    return given


async def _resumed(
    request: Request,
    caller: Annotated[Caller, _reader],
    stream: Stream,
    chat_id: Annotated[str, Path(min_length=1, max_length=255)],
    query: Annotated[ResumeQuery, Query()],
) -> AsyncIterator[AsyncIterator[Chunk]]:
    found = services(request)
    stream.open()
    run = await found.runs.newest_in(caller, conversation_named(caller, chat_id))
    if run is None or not (query.ended or await found.runs.wait(caller, run.run_id, 0) in OPEN):
        raise HTTPException(204)
    async with aclosing(read(found, stream, run.run_id, UiMessage(run.run_id))) as chunks:
        yield chunks


async def _as_sse(chunks: AsyncIterator[Chunk]) -> AsyncIterator[ServerSentEvent]:
    async for chunk in chunks:
        yield ServerSentEvent(raw_data=json.dumps(chunk))
    yield ServerSentEvent(raw_data="[DONE]")


@router.post(
    "",
    response_class=EventSourceResponse,
    dependencies=[_sender, Depends(unaltered), Depends(marked)],
    responses=documented(404, 409, 412),
)
async def chat(chunks: Annotated[AsyncIterator[Chunk], Depends(_told)]) -> AsyncIterator[ServerSentEvent]:
    """Send a message, or answers to approvals, and read what comes of it as a UI message stream.

    Of `messages` only the last one is read, or the one with the approvals that were answered: the history stands on our
    side. See `docs/how-to/web-clients.md`.
    """
    async for event in _as_sse(chunks):
        yield event


@router.get(
    "/{chat_id}/stream",
    response_class=EventSourceResponse,
    dependencies=[_reader, Depends(unaltered), Depends(marked)],
    responses={204: {"description": "Nothing is being answered"}},
)
async def resume_chat(chunks: Annotated[AsyncIterator[Chunk], Depends(_resumed)]) -> AsyncIterator[ServerSentEvent]:
    """Read the newest answer of a chat from its beginning, as `resumeStream` of the AI SDK does; 204: there is none."""
    async for event in _as_sse(chunks):
        yield event
