"""How an MCP server is reached, over stdio or HTTP, and how far each request came: its fate.

The SDK reports a request that was never sent and one whose answer was lost in the same words, and an answer of the
server's own in words like these. So how far a request came is noted here, where it is sent.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from holdfast.domain.mcp import HttpServer, McpServer, StdioServer
from holdfast.tools import mcp_stderr

#: How long a connection has to open, in seconds.
CONNECT_TIMEOUT_S = 30.0

#: The longest event of a stream that is read; the SDK's default, 1 MiB, is less than a tool may return.
_MAX_EVENT_BYTES = 32 * 1024 * 1024


class Fate:
    """How far one HTTP request came."""

    def __init__(self) -> None:
        self.never_ran: str | None = None  #: why the server can't have acted on it
        self.is_doubtful = False  #: it was sent, and what came back says nothing about it
        self.is_forgotten = False  #: the server does not know the session any more


#: What is read from a server, and what is written to it.
Streams = tuple[Any, Any]

#: The fate of the call that this task makes. A request is posted by a task of the SDK's, which inherits it.
_fate: ContextVar[Fate | None] = ContextVar("_fate", default=None)


@contextlib.contextmanager
def noting(fate: Fate) -> Iterator[None]:
    """The requests that are sent in this block note how far they came."""
    token = _fate.set(fate)
    try:
        yield
    finally:
        _fate.reset(token)


def transport(server: McpServer, note_trouble: Callable[[str], None]) -> AbstractAsyncContextManager[Streams]:
    """A connection to a server; `note_trouble` is told what goes wrong with it, without secrets."""
    if isinstance(server, HttpServer):
        return _http(server, note_trouble)
    return _stdio(server)


@asynccontextmanager
async def _stdio(server: StdioServer) -> AsyncIterator[Streams]:
    # The SDK gives the process what any program needs (PATH, HOME, …) and nothing else of our environment.
    parameters = StdioServerParameters(
        command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
    )
    with mcp_stderr.logged(server.name) as errlog:
        async with stdio_client(parameters, errlog=errlog) as streams:
            yield streams


@asynccontextmanager
async def _http(server: HttpServer, note_trouble: Callable[[str], None]) -> AsyncIterator[Streams]:
    # No limit on reading: how long a tool may take is for its own timeout to say.
    timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=None)
    async with (
        _HttpClient(note_trouble, headers=dict(server.headers), timeout=timeout) as http_client,
        streamable_http_client(server.url, http_client=http_client, max_sse_event_size=_MAX_EVENT_BYTES) as streams,
    ):
        yield streams


class _HttpClient(httpx2.AsyncClient):
    """Notes the fate of each request.

    What can't be sent is answered as if by a gateway: an exception here would end the whole session, and with it the
    other calls that are under way.
    """

    def __init__(self, note_trouble: Callable[[str], None], **options: Any) -> None:
        super().__init__(**options)
        self._note_trouble = note_trouble

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        fate = _fate.get() or Fate()
        try:
            response = await super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            fate.never_ran = "it can't be connected to"
            self._note_trouble(fate.never_ran)
            return httpx2.Response(502, request=request)
        except httpx2.TransportError:
            fate.is_doubtful = True
            self._note_trouble("the connection to it broke")
            return httpx2.Response(502, request=request)
        if response.status_code >= 300:
            self._note_trouble(f"it answers with status {response.status_code}")
        _judge(response, fate)
        return response


def _judge(response: httpx2.Response, fate: Fate) -> None:
    """What an answer's status says of the request. The last answer counts: a redirect may have led to it."""
    status = response.status_code
    kind = response.headers.get("content-type", "")
    fate.never_ran = f"it answers with status {status}" if 300 <= status < 500 else None
    fate.is_forgotten = status == 404 and "mcp-session-id" in response.request.headers
    is_readable = status < 300 and status != 202 and kind.startswith(("application/json", "text/event-stream"))
    fate.is_doubtful = fate.never_ran is None and not is_readable


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[Streams], on_end: Callable[[], None]
) -> AsyncIterator[Streams]:
    """A transport that says when the server's end of it is closed, which the SDK keeps to itself."""
    async with transport as (read, write):
        yield _Watched(read, on_end), write


class _Watched:
    """What a server sends, and word of its end."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        received: SessionMessage | Exception = await self._stream.receive()
        return received

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            received: SessionMessage | Exception = await self._stream.__anext__()
        except (StopAsyncIteration, anyio.ClosedResourceError):
            self._on_end()
            raise
        return received

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[bool | None]:
        left: Awaitable[bool | None] = self._stream.__aexit__(kind, error, traceback)
        return left
