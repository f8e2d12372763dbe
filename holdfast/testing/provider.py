"""A model provider that does as it is told: OpenAI's API over real HTTP, with what was asked of it on record.

    with ScriptedProvider() as provider:
        provider.script(HttpError(500), Text("at the second try"))
        ...  # requests go to provider.url
        assert provider.calls == 2

`python -m holdfast.testing.provider --port 9999 --latency-ms 200` serves one by itself, for benchmarks.
"""

import argparse
import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.llm.openai_wire import Answer, Call, completion, count_tokens, events
from holdfast.testing.replies import Cut, EmptyChoices, Garbage, Hang, HttpError, Reply, Text, ToolCalls


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it came: the model asked for, and the whole body."""

    model: str
    body: dict[str, Any]

    @property
    def last_text(self) -> str:
        """The text of the last message, which may be a tool's result."""
        return str(self.body["messages"][-1].get("content") or "")

    @property
    def last_role(self) -> str:
        return str(self.body["messages"][-1]["role"])


def echo(request: RecordedRequest) -> Reply:
    """The default: say what was said."""
    return Text(f"You said: {request.last_text}")


class ScriptedProvider:
    """Serves on a loopback port, in a thread of its own, so that a test which blocks does not stop it."""

    def __init__(self, port: int = 0, latency_s: float = 0, *, keeps_requests: bool = True) -> None:
        self.requests: list[RecordedRequest] = []
        self.default: Callable[[RecordedRequest], Reply] = echo
        self._script: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._latency_s = latency_s
        self._keeps_requests = keeps_requests
        self._released = threading.Event()
        app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="scripted provider", daemon=True)

    @property
    def url(self) -> str:
        """The base URL of its API, once it is started."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    @property
    def calls(self) -> int:
        """How many requests have come."""
        return len(self.requests)

    def script(self, *replies: Reply) -> None:
        """What to do with the next requests, one reply each; after them the default is asked again."""
        with self._lock:
            self._script.extend(replies)

    def reset(self) -> None:
        """Forget the script and the requests, and let go of those that hang."""
        with self._lock:
            self._script.clear()
            self.requests.clear()
            self.default = echo
            self._released.set()
            self._released = threading.Event()

    def start(self) -> None:
        """Serve; returns when connections are accepted."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the scripted provider could not start")
            threading.Event().wait(0.01)

    def stop(self) -> None:
        """Stop serving, letting go of what hangs."""
        self._released.set()
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def serve_until_stopped(self) -> None:
        """Serve in this thread, until a signal comes."""
        self._server.run()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        recorded = RecordedRequest(str(body.get("model")), body)
        with self._lock:
            if self._keeps_requests:
                self.requests.append(recorded)
            reply = self._script.popleft() if self._script else None
            released = self._released
        await asyncio.sleep(self._latency_s)
        return await _respond(reply or self.default(recorded), recorded, released)


async def _respond(reply: Reply, request: RecordedRequest, released: threading.Event) -> Response:
    match reply:
        case HttpError(status, message, headers):
            error = {"error": {"message": message, "type": "scripted", "code": status}}
            return JSONResponse(error, status, headers)
        case Garbage(body):
            return Response(body, media_type="text/html")
        case EmptyChoices():
            return JSONResponse({**completion(Answer(request.model)), "choices": []})
        case Hang():
            await asyncio.to_thread(released.wait)
            return JSONResponse({"error": {"message": "released"}}, 503)
        case Cut(text):
            answered = _answered(_answer(Text(text), request), request)
            return await _torn(answered)
        case _:
            return _answered(_answer(reply, request), request)


def _answered(answer: Answer, request: RecordedRequest) -> Response:
    if not request.body.get("stream"):
        return JSONResponse(completion(answer))
    include_usage = bool((request.body.get("stream_options") or {}).get("include_usage"))
    return StreamingResponse(events(answer, include_usage=include_usage), media_type="text/event-stream")


def _answer(reply: Text | ToolCalls, request: RecordedRequest) -> Answer:
    calls = _calls(reply) if isinstance(reply, ToolCalls) else []
    said = count_tokens(reply.text or [call.arguments for call in calls])
    return Answer(request.model, reply.text, calls, count_tokens(request.body["messages"]), said)


def _calls(reply: ToolCalls) -> list[Call]:
    ids = reply.ids or [f"call_{number}" for number in range(1, len(reply.calls) + 1)]
    return [
        Call(tool, arguments if isinstance(arguments, str) else json.dumps(arguments), call_id)
        for (tool, arguments), call_id in zip(reply.calls, ids, strict=True)
    ]


async def _torn(answered: Response) -> Response:
    """The first half of a response, under the length of the whole, so that the server drops the connection."""
    if isinstance(answered, StreamingResponse):
        whole = b"".join([part async for part in answered.body_iterator if isinstance(part, bytes)])
    else:
        whole = bytes(answered.body)
    headers = {"content-length": str(len(whole)), "content-type": answered.headers["content-type"]}

    async def half() -> AsyncIterator[bytes]:
        yield whole[: len(whole) // 2]

    return StreamingResponse(half(), headers=headers)


def tool_then_text(tool: str, arguments: dict[str, Any]) -> Callable[[RecordedRequest], Reply]:
    """A default that asks for one tool, and answers with a text once it has the result."""

    def reply(request: RecordedRequest) -> Reply:
        if request.last_role == "user" and request.body.get("tools"):
            return ToolCalls([(tool, arguments)])
        return Text("Done.")

    return reply


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible provider.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--tool", help="NAME=JSON: ask for this tool first")
    options = parser.parse_args()
    provider = ScriptedProvider(options.port, options.latency_ms / 1000, keeps_requests=False)
    if options.tool:
        name, _, arguments = options.tool.partition("=")
        provider.default = tool_then_text(name, json.loads(arguments))
    provider.serve_until_stopped()


if __name__ == "__main__":
    main()
