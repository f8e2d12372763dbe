"""A model provider that does as it is told: real APIs over real HTTP, with what was asked of it on record.

    with ScriptedProvider() as provider:
        provider.script(HttpError(500), Text("at the second try"))
        ...  # requests go to provider.url
        assert provider.calls == 2

It speaks OpenAI's chat completions and embeddings under `provider.url`, Anthropic's messages and Ollama's own API under
`provider.root`; a reply of the script is said in the format that is asked for.

`python -m holdfast.testing.provider --port 9999 --latency-ms 200` serves one by itself, for benchmarks.
"""

import argparse
import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast.testing import embeddings_wire, ollama_wire
from holdfast.testing.delivery import Asked, respond
from holdfast.testing.replies import Reply, Text, ToolCalls
from holdfast.testing.watching import Tally, Watched
from holdfast.testing.wires import FORMATS, Format, Wire


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it came: the model asked for, the whole body, the format it came in, and the key it came with."""

    model: str
    body: dict[str, Any]
    wire: Wire = "openai"
    key: str = ""

    @property
    def last_text(self) -> str:
        """The text of the last message, which may be a tool's result; or the last text to embed."""
        if self.wire == "embeddings":
            return embeddings_wire.texts(self.body)[-1]
        return _text(self._last)

    @property
    def last_role(self) -> str:
        """Who said it; `tool` for a tool's result in every format, and `user` for a text to embed."""
        if self.wire == "embeddings":
            return "user"
        return "tool" if self._last.get("type") == "tool_result" else str(self.body["messages"][-1]["role"])

    @property
    def _last(self) -> dict[str, Any]:
        # Anthropic's messages alternate: what several messages said to the model are blocks of one, in order.
        message: dict[str, Any] = self.body["messages"][-1]
        said = message.get("content")
        blocks = said if self.wire == "anthropic" and isinstance(said, list) else []
        return blocks[-1] if blocks else message


def _text(part: dict[str, Any]) -> str:
    """The text of a message or a block: its own, or that of the blocks in it."""
    content = part.get("content", part.get("text")) or ""
    return content if isinstance(content, str) else "".join(_text(block) for block in content)


def echo(request: RecordedRequest) -> Reply:
    """The default: say what was said."""
    return Text(f"You said: {request.last_text}")


class ScriptedProvider:
    """Serves on a loopback port, in a thread of its own, so that a test which blocks does not stop it."""

    def __init__(self, port: int = 0, latency_s: float = 0, *, keeps_requests: bool = True) -> None:
        self.requests: list[RecordedRequest] = []
        self.default: Callable[[RecordedRequest], Reply] = echo
        self._script: deque[Reply] = deque()
        self._lock = threading.RLock()
        self._latency_s = latency_s
        self._keeps_requests = keeps_requests
        self._tally = Tally()
        self._released: Future[None] = Future()
        # By default idle connections are closed after five seconds, and a client that asks at that moment is refused.
        config = uvicorn.Config(
            self._app(), host="127.0.0.1", port=port, log_config=None, access_log=False, timeout_keep_alive=3600
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="scripted provider", daemon=True)

    @property
    def root(self) -> str:
        """Where it is, once it is started: the base URL of Anthropic's API and of Ollama's."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        """The base URL of OpenAI's API, once it is started."""
        return f"{self.root}/v1"

    @property
    def calls(self) -> int:
        """How many requests have come."""
        return len(self.requests)

    @property
    def abandoned(self) -> int:
        """How many requests were given up by their client before it had the whole answer."""
        return self._tally.abandoned

    @property
    def in_flight(self) -> int:
        """How many requests are being answered right now."""
        return self._tally.in_flight

    @property
    def most_in_flight(self) -> int:
        """How many requests were being answered at once, at most."""
        return self._tally.most_in_flight

    def script(self, *replies: Reply) -> None:
        """What to do with the next requests, one reply each; after them the default is asked again."""
        with self._lock:
            self._script.extend(replies)

    def reset(self) -> None:
        """Forget the script, the requests and the counts, and let go of what is held back."""
        with self._lock:
            self._script.clear()
            self.requests.clear()
            self.default = echo
            self._tally = Tally()
            self.release()

    def release(self) -> None:
        """Let go of the requests whose answers are held back: what hangs, fails; what stalls or is slow, goes on."""
        with self._lock:
            held, self._released = self._released, Future()
        held.set_result(None)

    def start(self) -> None:
        """Serve; returns when connections are accepted."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the scripted provider could not start")
            threading.Event().wait(0.01)

    def stop(self) -> None:
        """Stop serving, letting go of what is held back."""
        self.release()
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

    def _app(self) -> Starlette:
        spoken = [Route(each.path, partial(self._serve, each), methods=["POST"]) for each in FORMATS]
        return Starlette(routes=[*spoken, Route("/api/show", _show, methods=["POST"])])

    async def _serve(self, format_: Format, request: Request) -> Watched:
        body = await request.json()
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        recorded = RecordedRequest(str(body.get("model")), body, format_.wire, key)
        with self._lock:
            tally, asked = self._tally, Asked(format_, body, self._released)
            tally.arrives()
            if self._keeps_requests:
                self.requests.append(recorded)
            reply = self._script.popleft() if self._script else None
        return Watched(partial(self._respond, reply, recorded, asked), tally)

    async def _respond(self, reply: Reply | None, recorded: RecordedRequest, asked: Asked) -> Response:
        await asyncio.sleep(self._latency_s)
        return await respond(reply or self.default(recorded), asked)


async def _show(_: Request) -> Response:
    return JSONResponse(ollama_wire.card())


def tool_then_text(tool: str, arguments: dict[str, Any]) -> Callable[[RecordedRequest], Reply]:
    """A default that asks for one tool, and answers with a text once it has the result."""

    def reply(request: RecordedRequest) -> Reply:
        if request.last_role == "user" and request.body.get("tools"):
            return ToolCalls([(tool, arguments)])
        return Text("Done.")

    return reply


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A scripted model provider.")
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
