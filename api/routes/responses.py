"""`/v1/responses`: OpenAI's Responses, with an agent in the place of a model."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from api.auth import needs
from api.event_stream import streaming
from api.open_streams import Stream
from api.openai_answers import HELD_S, ResponseAnswer
from api.openai_input import Metadata, read_functions, read_items, user_of
from api.openai_parameters import check_for_responses
from api.openai_route import EVENTS, IsRetry, as_lines, openai_resource, while_heard
from api.problems import documented
from api.shapes import ID_PATTERN, PathId
from api.wiring import Services, services
from holdfast.domain.client_tools import read_tools
from holdfast.domain.errors import NotFound
from holdfast.domain.exchanges import Exchange, Place, place_of
from holdfast.domain.permissions import Caller, Permission

router = openai_resource("/v1/responses")

Json = dict[str, Any]


class ConversationBody(BaseModel):
    """A conversation, by its id."""

    id: str = Field(pattern=ID_PATTERN)


class ResponseBody(BaseModel):
    """A request. What else OpenAI's API takes may stand beside these; what would change something is refused (400).

    `model` is an agent's name. Of an `input` with the whole history, what follows the agent's last word is taken.
    """

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=255)
    input: str | list[Json]
    stream: StrictBool | None = None
    background: StrictBool | None = None
    previous_response_id: str | None = Field(default=None, pattern=ID_PATTERN)
    conversation: Annotated[str, Field(pattern=ID_PATTERN)] | ConversationBody | None = None
    metadata: Metadata | None = None
    tools: list[Json] | None = None

    def exchange(self, key: str | None, *, is_retry: bool) -> Exchange:
        """What the request asks for.

        Raises:
            InvalidInput: something in it can't be taken.
            NotFound: there is no such response.
        """
        check_for_responses(self.model_extra or {})
        named = self.conversation
        return Exchange(
            agent=self.model,
            entries=read_items(self.input),
            client_tools=read_tools(read_functions(self.tools, nested=False)),
            conversation_id=named.id if isinstance(named, ConversationBody) else named,
            place=None if self.previous_response_id is None else _place(self.previous_response_id),
            user=user_of(self.model_extra),
            metadata=dict(self.metadata or {}),
            key=key,
            is_retry=is_retry,
        )


class ResponseShape(BaseModel):
    """A response, as OpenAI's API describes it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"] = "response"
    status: str
    output: list[Json]


_ANSWER: Json = {"model": ResponseShape, "content": EVENTS}


@router.post("", response_model=None, responses={200: _ANSWER, **documented(404, 409, 412)})
async def create_response(
    request: Request,
    caller: Annotated[Caller, needs(Permission.MESSAGES_SEND)],
    reading: Stream,
    body: ResponseBody,
    is_retry: IsRetry,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Send a message to an agent, or decide what it asked: see `docs/how-to/openai.md`."""
    found = services(request)
    if body.stream or not body.background:
        reading.open()
    begun = await found.exchanges.begin(caller, body.exchange(idempotency_key, is_retry=is_retry))
    answer = await _answer(found, caller, begun.place)
    if body.stream:
        return streaming(as_lines(answer.events(may_go_on=reading.may_go_on), named=True), {})
    if body.background:
        return JSONResponse(await answer.whole())
    return JSONResponse(await while_heard(request, reading, answer.whole(HELD_S)))


@router.get(
    "/{response_id}",
    response_model=None,
    responses={200: _ANSWER, **documented(400)},
)
async def get_response(
    request: Request,
    caller: Annotated[Caller, needs(Permission.RUNS_READ)],
    reading: Stream,
    response_id: PathId,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1, lt=2**53, description="the last sequence_number that was read")] = -1,
) -> Response:
    """A response as it stands; with `stream=true`, its events after one that was read, and those to come."""
    if stream:
        reading.open()
    answer = await _answer(services(request), caller, _place(response_id))
    if stream:
        events = answer.events(may_go_on=reading.may_go_on)
        return streaming(as_lines(_after(starting_after, events), named=True), {})
    return JSONResponse(await answer.whole())


@router.post("/{response_id}/cancel", response_model=None, responses={200: {"model": ResponseShape}})
async def cancel_response(
    request: Request, caller: Annotated[Caller, needs(Permission.RUNS_CANCEL)], response_id: PathId
) -> Response:
    """Stop the run behind a response, whichever message began it. One that has ended stays as it is."""
    found, place = services(request), _place(response_id)
    run = (await found.exchanges.find(caller, place)).run
    await found.runs.cancel(caller, run.merged_into or run.run_id)
    await found.runs.wait(caller, place.run_id, _CANCELLED_WITHIN_S)
    return JSONResponse(await (await _answer(found, caller, place)).whole())


#: How long a cancellation waits for the run's end, to tell of it.
_CANCELLED_WITHIN_S = 5.0


async def _answer(found: Services, caller: Caller, place: Place) -> ResponseAnswer:
    return ResponseAnswer(found, caller, await found.exchanges.find(caller, place))


async def _after(number: int, events: AsyncGenerator[Json]) -> AsyncGenerator[Json]:
    async with aclosing(events):
        async for event in events:
            if event["sequence_number"] > number:
                yield event


def _place(response_id: str) -> Place:
    place = place_of(response_id)
    if place is None:
        raise NotFound("response", response_id)
    return place
