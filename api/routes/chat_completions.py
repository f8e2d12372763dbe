"""`POST /v1/chat/completions`: OpenAI's chat completions, with an agent in the place of a model."""

from typing import Annotated, Any, Literal

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from api.auth import needs
from api.event_stream import streaming
from api.open_streams import Stream
from api.openai_answers import ChatAnswer
from api.openai_input import Metadata, read_functions, read_messages, user_of
from api.openai_parameters import check_for_chat
from api.openai_route import CONVERSATION_HEADER, EVENTS, IsRetry, as_lines, openai_resource, while_heard
from api.problems import documented
from api.shapes import ID_PATTERN
from api.wiring import services
from holdfast.domain.client_tools import read_tools
from holdfast.domain.exchanges import Exchange
from holdfast.domain.permissions import Caller, Permission

router = openai_resource("/v1/chat")

Json = dict[str, Any]


class StreamOptionsBody(BaseModel):
    """What a stream tells beside the text."""

    model_config = ConfigDict(extra="allow")

    include_usage: StrictBool | None = None


class CompletionsBody(BaseModel):
    """A request. What else OpenAI's API takes may stand beside these; what would change something is refused (400).

    `model` is an agent's name. `messages` have the whole history, of which what follows the agent's last word is new.
    """

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=255)
    messages: list[Json] = Field(min_length=1)
    stream: StrictBool | None = None
    stream_options: StreamOptionsBody | None = None
    tools: list[Json] | None = None
    metadata: Metadata | None = None

    def exchange(self, key: str | None, conversation_id: str | None, *, is_retry: bool) -> Exchange:
        """What the request asks for.

        Raises:
            InvalidInput: something in it can't be taken.
        """
        check_for_chat(self.model_extra or {})
        return Exchange(
            agent=self.model,
            entries=read_messages(self.messages),
            client_tools=read_tools(read_functions(self.tools, nested=True)),
            conversation_id=conversation_id,
            user=user_of(self.model_extra),
            metadata=dict(self.metadata or {}),
            key=key,
            is_retry=is_retry,
        )


class ChatCompletionShape(BaseModel):
    """A completion, as OpenAI's API describes it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    model: str
    choices: list[Json]


@router.post(
    "/completions",
    response_model=None,
    responses={200: {"model": ChatCompletionShape, "content": EVENTS}, **documented(404, 409)},
)
async def create_chat_completion(
    request: Request,
    caller: Annotated[Caller, needs(Permission.MESSAGES_SEND)],
    reading: Stream,
    body: CompletionsBody,
    is_retry: IsRetry,
    idempotency_key: Annotated[str | None, Header()] = None,
    x_holdfast_conversation: Annotated[str | None, Header(pattern=ID_PATTERN)] = None,
) -> Response:
    """Send a message to an agent: see `docs/how-to/openai.md`."""
    found = services(request)
    exchange = body.exchange(idempotency_key, x_holdfast_conversation, is_retry=is_retry)
    reading.open()
    begun = await found.exchanges.begin(caller, exchange)
    answer = ChatAnswer(found, caller, await found.exchanges.find(caller, begun.place))
    headers = {CONVERSATION_HEADER: begun.conversation_id}
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage is True
        chunks = answer.chunks(with_usage=with_usage, may_go_on=reading.may_go_on)
        return streaming(as_lines(chunks, named=False), headers)
    return JSONResponse(await while_heard(request, reading, answer.whole()), headers=headers)
