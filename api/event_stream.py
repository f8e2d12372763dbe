"""The event log of a run as server-sent events: `id` is its number, `event` its type, `data` its JSON."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import Depends, Header, Query, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, ServerSentEvent
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from api.routing import ResourceRoute
from holdfast.domain.errors import InvalidInput
from holdfast.domain.events import LoggedEvent

_LONGEST = 9  # digits: the numbers of a log are 32-bit integers

#: Seconds without an event after which a comment is sent; as FastAPI's own streams do.
_PING_S = 15.0

Number = Annotated[int | None, Query(ge=0, lt=10**_LONGEST, description="the number of the last event that was read")]


def resumed_after(after: Number = None, last_event_id: Annotated[str | None, Header(max_length=255)] = None) -> int:
    """After which number to go on: what a browser says when it connects again counts, since it is newer.

    Raises:
        InvalidInput: `Last-Event-ID` is not the number of an event.
    """
    if not last_event_id:
        return after or 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _LONGEST):
        raise InvalidInput("Last-Event-ID", "Last-Event-ID must be the id of an event of this stream: a number.")
    return int(last_event_id)


#: In a route's signature: the number after which to go on.
ResumedAfter = Annotated[int, Depends(resumed_after)]


def unaltered(response: Response) -> None:
    """Have no proxy change a stream: what is compressed on the way is held back on the way."""
    # Beside FastAPI's own `no-cache`.
    response.headers["cache-control"] = "no-transform"


async def as_sse(events: AsyncIterator[LoggedEvent]) -> AsyncIterator[ServerSentEvent]:
    """Events as FastAPI sends them."""
    async for event in events:
        yield ServerSentEvent(raw_data=event.data, event=event.type, id=str(event.seq))


async def _with_pings(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Events, and a comment whenever none has come for a while, so that no proxy takes the stream for dead."""
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(events))
            while not (await asyncio.wait({following}, timeout=_PING_S))[0]:
                yield KEEPALIVE_COMMENT
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        # Whoever was reading may have gone, and this task with them.
        with CancelScope(shield=True):
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait({following})
            await events.aclose()


def streaming(events: AsyncGenerator[bytes], headers: Mapping[str, str]) -> EventSourceResponse:
    """A stream for a route whose body says whether it answers with one: FastAPI asks the route's signature."""
    usual = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
    return EventSourceResponse(_with_pings(events), headers=usual | dict(headers))


#: What the documentation says of a route that answers with a stream if it is asked for one.
MEDIA: Mapping[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}


class StreamRoute(ResourceRoute):
    """A route for those who ask for a stream; others are left to the next route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        accepted = Headers(scope=scope).get("accept", "") if scope["type"] == "http" else ""
        wanted = {part.partition(";")[0].strip().casefold() for part in accepted.split(",")}
        return super().matches(scope) if "text/event-stream" in wanted else (Match.NONE, {})
