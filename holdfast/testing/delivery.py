"""How a reply is delivered over HTTP: at once, late, in part, byte by byte, or not at all."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.llm.openai_wire import Answer
from holdfast.testing.replies import (
    Cut,
    Dribble,
    EmptyChoices,
    EndsEarly,
    Garbage,
    Hang,
    HttpError,
    Reply,
    Slow,
    Stalls,
    Text,
    ToolCalls,
)
from holdfast.testing.wires import OPENAI, Format, said


@dataclass(frozen=True)
class Asked:
    """A request: the format and the body it came in, and what lets go of it if its answer is held back."""

    format: Format
    body: dict[str, Any]
    released: Future[None]

    @property
    def is_streamed(self) -> bool:
        return self.format.is_streamed(self.body)

    @property
    def media_type(self) -> str:
        return self.format.stream_type if self.is_streamed else "application/json"

    def parts(self, answer: Answer) -> list[bytes]:
        """The events of a streamed answer, or all of it as the only part."""
        if self.is_streamed:
            return list(self.format.events(answer, self.body))
        return [_json(self.format.whole(answer, self.body))]

    async def hold(self, seconds: float | None = None) -> None:
        """Wait to be let go of, for so long at most."""
        await asyncio.wait([asyncio.wrap_future(self.released)], timeout=seconds)


async def respond(reply: Reply, asked: Asked) -> Response:
    """The response that the reply makes of a request, once there is one."""
    match reply:
        case Slow(slow, seconds):
            await asked.hold(seconds)
            return await respond(slow, asked)
        case Hang():
            await asked.hold()
            return await respond(HttpError(503, "released"), asked)
        case HttpError(status, message, headers):
            return JSONResponse(asked.format.error(status, message), status, headers)
        case Garbage(body, media_type):
            return Response(body, media_type=media_type)
        case EmptyChoices():
            return _sent(_nothing(asked), asked)
        case _:
            return await _deliver(reply, asked)


async def _deliver(reply: Text | ToolCalls | Cut | EndsEarly | Stalls | Dribble, asked: Asked) -> Response:
    answer = reply if isinstance(reply, Text | ToolCalls) else reply.reply
    parts = asked.parts(said(Text(answer) if isinstance(answer, str) else answer, asked.body))
    match reply:
        case Cut(_, after):
            return _cut(b"".join(parts), after, asked)
        case Dribble():
            return _dribbled(b"".join(parts), asked)
        case EndsEarly(_, after) if asked.is_streamed:
            return _sent(parts[:after], asked)
        case Stalls(_, after, ends) if asked.is_streamed:
            rest = [] if ends else parts[after:]
            return StreamingResponse(_stalled(parts[:after], rest, asked), media_type=asked.media_type)
        case Stalls():
            await asked.hold()
    return _sent(parts, asked)


def _sent(parts: list[bytes], asked: Asked) -> Response:
    if asked.is_streamed:
        return StreamingResponse(_one_by_one(parts), media_type=asked.media_type)
    return Response(b"".join(parts), media_type=asked.media_type)


def _cut(whole: bytes, after: int | None, asked: Asked) -> Response:
    beginning = whole[: len(whole) // 2 if after is None else after]
    return _Dropped(beginning, headers={"content-length": str(len(whole))}, media_type=asked.media_type)


class _Dropped(Response):
    """The beginning of a body. It is never said to be over, and so the server drops the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})


def _dribbled(whole: bytes, asked: Asked) -> Response:
    headers = {} if asked.is_streamed else {"content-length": str(len(whole))}
    each = (whole[place : place + 1] for place in range(len(whole)))
    return StreamingResponse(_one_by_one(each), headers=headers, media_type=asked.media_type)


async def _stalled(first: list[bytes], rest: list[bytes], asked: Asked) -> AsyncIterator[bytes]:
    async for part in _one_by_one(first):
        yield part
    await asked.hold()
    async for part in _one_by_one(rest):
        yield part


async def _one_by_one(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)  # so that a client that leaves meanwhile is seen


def _nothing(asked: Asked) -> list[bytes]:
    """An answer without choices, without content, or without vectors."""
    empty = Answer(str(asked.body.get("model")))
    if asked.format is not OPENAI:
        return Asked(asked.format, {**asked.body, "input": []}, asked.released).parts(empty)
    without = _json({**OPENAI.whole(empty, asked.body), "choices": []})
    return [b"data: " + without + b"\n\n", b"data: [DONE]\n\n"] if asked.is_streamed else [without]


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
