"""What the routes of OpenAI's APIs share: the status of bad input, a retry as its clients tell it, a stream."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from api.open_streams import LOOK_AGAIN_S, OpenStream
from api.problems import INVALID_AS
from api.routing import ResourceRoute

Json = dict[str, Any]

_FIRST = asyncio.FIRST_COMPLETED

#: What the documentation says of a route that may answer with a stream.
EVENTS: Json = {
    "text/event-stream": {
        "schema": {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
    }
}

#: Tells a client of chat completions which conversation it is in, and us, if it sends it back.
CONVERSATION_HEADER = "x-holdfast-conversation"


class OpenAiRoute(ResourceRoute):
    """A route whose clients know 400 for input that can't be taken, and raise `BadRequestError`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_openai(request: Request) -> Response:
            request.scope[INVALID_AS] = 400
            return await handle(request)

        return handle_as_openai


def openai_resource(prefix: str) -> APIRouter:
    """The router of a resource of OpenAI's."""
    return APIRouter(prefix=prefix, tags=["openai"], route_class=OpenAiRoute)


def _is_retry(x_stainless_retry_count: Annotated[str | None, Header(include_in_schema=False)] = None) -> bool:
    return x_stainless_retry_count not in (None, "", "0")


#: In a route's signature: whether the client says that it has sent the same before. OpenAI's SDKs send no key.
IsRetry = Annotated[bool, Depends(_is_retry)]


async def while_heard(request: Request, stream: OpenStream, answer: Coroutine[Any, Any, Json]) -> Json:
    """An answer that may take minutes, for as long as its client waits for it, and may have it; empty, for whom has
    left.

    Whoever tries again every few seconds would otherwise have us wait many times.

    Raises:
        CredentialRefused: they may not have it any more.
    """
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_left(request))
    try:
        while not (await asyncio.wait({answering, leaving}, timeout=LOOK_AGAIN_S, return_when=_FIRST))[0]:
            await stream.check()
        return answering.result() if answering.done() else {}
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.wait({answering, leaving})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def as_lines(events: AsyncGenerator[Json], *, named: bool) -> AsyncGenerator[bytes]:
    """Events as OpenAI sends them: each with its type, if it has one (`named`); chunks end with a word of their own.

    Unless the last one has an error: what is cut off has no end.
    """
    event: Json = {}
    async with aclosing(events):
        async for event in events:
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
    if not named and "error" not in event:
        yield b"data: [DONE]\n\n"
