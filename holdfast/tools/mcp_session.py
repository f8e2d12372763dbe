"""A session with one MCP server, kept alive: connect, list, hear of changes, call, connect again.

The SDK's connections are made of cancel scopes, which must be left in the task that entered them. So each server has
one task that opens its sessions, holds them and closes them, and everybody else only sends requests through the open
one.

The danger is a call whose connection breaks. Before anything was sent, it failed, and may be made again. After, nobody
knows whether its effect happened, and it must not look like a failure. The SDK reports both in the same words, and an
answer of the server's own in words like these. So how far a request came is noted where it is sent (`Fate`), and where
nothing was noted, the outcome counts as unknown.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import anyio
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    ServerNotification,
    Tool,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from holdfast.domain.mcp import McpServer, without_secrets
from holdfast.tools.mcp_transport import Fate, noting, transport, watched
from holdfast.tools.run import NothingHappened, OutcomeUnknown

log = logging.getLogger(__name__)

#: How long a server has to start, to agree on a version and to list its tools. `npx` may download it first.
_START_TIMEOUT_S = 60.0

#: How long a call waits for a connection that has to be opened for it.
_WAIT_S = 30.0

#: Between attempts to connect: doubled each time, and short again after a session that lasted.
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_LASTING_S = 60.0

#: Between attempts to be told of changes, when the server has ended it.
_LISTEN_AGAIN_S = 1.0

#: The SDK's own limit on a call. The runner cuts a call long before, at its tool's timeout.
_CALL_TIMEOUT_S = 86_400.0

#: A server that goes on and on listing is cut here.
_MAX_PAGES = 100

#: What is told of an error.
_MAX_TROUBLE_CHARACTERS = 300

#: What the SDK makes up when a request has no answer. A server may use the same codes; then it is taken at its worst.
_NO_ANSWER = frozenset({CONNECTION_CLOSED, REQUEST_TIMEOUT, PARSE_ERROR})

_CLIENT = Implementation(name="holdfast", version="0")
_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


class Unreachable(NothingHappened):
    """There is no connection to the server, and none can be opened. Nothing was sent."""


class Refused(NothingHappened):
    """The server did not take the call, or says that it failed. The text is for the model."""


class _ListTooLong(Exception):
    """The server's list of tools has no end."""


class ServerSession:
    """One server: a session that is opened by `start`, and again whenever it was lost, until `stop`.

    Args:
        server: how it is reached.
        on_tools: told the server's tools, each time that they were listed: at the start of each session, and when they
            may have changed.
    """

    def __init__(self, server: McpServer, on_tools: Callable[[list[Tool]], None]) -> None:
        self.name = server.name
        #: Why there is no session; None: there is one, or none was tried yet.
        self.trouble: str | None = None
        self._server = server
        self._on_tools = on_tools
        self._client: Client | None = None
        self._http_trouble: str | None = None
        self._handshake: Literal["auto", "legacy"] = "auto"
        self._is_lost = False
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        #: An attempt to connect has come to its end, good or bad.
        self._attempted = asyncio.Event()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.create_task(self._keep(), name=f"MCP server {self.name}")

    async def stop(self) -> None:
        """Close the session; a process of ours is told to end, and killed if it does not."""
        if self._task is not None:
            self._scope.cancel()
            await self._task

    @property
    def is_connected(self) -> bool:
        """Whether there is a session, and its tools are known."""
        return self._client is not None

    async def attempted(self) -> None:
        """Return when an attempt to connect is over, well or badly."""
        await self._attempted.wait()

    async def call(self, tool: str, arguments: dict[str, Any], check: Callable[[], None]) -> CallToolResult:
        """Have the server run a tool.

        Args:
            tool: the server's own name of it.
            arguments: validated.
            check: called when a connection is there and the tools are known; raises if the tool must not be called.

        Raises:
            Unreachable: no connection could be opened; nothing was sent.
            Refused: the server did not take the call, or says that it failed.
            OutcomeUnknown: the call was sent, and no answer to it was understood.
        """
        client = await self._connected()
        check()
        fate = Fate()
        try:
            return await self._ask(client, tool, arguments, fate)
        except Refused:
            if not fate.is_forgotten:
                raise
        # The server was started anew and knows nothing of our session: nothing ran, and a new one is opened.
        if self._client is client:
            self._lose()
        client = await self._connected()
        check()
        return await self._ask(client, tool, arguments, Fate())

    async def _connected(self) -> Client:
        if self._client is None:
            self._attempted.clear()
            self._hurry.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await self._attempted.wait()
        if self._client is None:
            trouble = self.trouble or "it does not answer"
            raise Unreachable(f"the MCP server {self.name!r} can't be reached ({trouble}); nothing was sent")
        return self._client

    async def _ask(self, client: Client, tool: str, arguments: dict[str, Any], fate: Fate) -> CallToolResult:
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        with self._counted(), noting(fate):
            try:
                # `Client.call_tool` raises where a result does not fit the tool's output schema, after the effect.
                answer = await client.session.send_request(
                    request, _ANSWER, request_read_timeout_seconds=_CALL_TIMEOUT_S
                )
            except MCPError as error:
                raise self._what_became(error, fate) from None
            except ValidationError:
                raise OutcomeUnknown(f"the MCP server {self.name!r} answered with what is no result") from None
        if isinstance(answer, InputRequiredResult):
            raise Refused("the server asks for further input before it runs the tool, and none can be given here")
        return answer

    def _what_became(self, error: MCPError, fate: Fate) -> Exception:
        if fate.never_ran is not None:
            # Perhaps the server was changed, and wants another form of the call: it is asked for its tools again.
            self._news.set()
            return Refused(f"the MCP server {self.name!r} did not take the call: {fate.never_ran}; it was not run")
        if fate.is_doubtful or error.code in _NO_ANSWER:
            self._news.set()
            return OutcomeUnknown(f"the call was sent to the MCP server {self.name!r}, and no answer to it came back")
        return Refused(error.message)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()

    # The task that owns the session

    async def _keep(self) -> None:
        """Open a session whenever there is none."""
        loop = asyncio.get_running_loop()
        pause = _SHORTEST_PAUSE_S
        with self._scope:
            while True:
                began = loop.time()
                await self._hold_a_session()
                pause = _SHORTEST_PAUSE_S if loop.time() - began > _LASTING_S else min(2 * pause, _LONGEST_PAUSE_S)
                with anyio.move_on_after(pause):
                    await self._hurry.wait()
        self._client = None
        self.trouble = "it was stopped"
        self._attempted.set()

    async def _hold_a_session(self) -> None:
        """Connect and stay connected; returns when the session is over, whatever ended it."""
        self._is_lost = False
        self._news.clear()
        self._attempted.clear()
        self._http_trouble = None
        scope = anyio.CancelScope(deadline=anyio.current_time() + _START_TIMEOUT_S)
        trouble = f"it does not answer within {_START_TIMEOUT_S:g} s"
        was_up = False
        with scope:
            try:
                async with self._open() as client:
                    await self._list(client)
                    self._take_up(client)
                    was_up = True
                    scope.deadline = math.inf
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._hear, client)
                        await self._follow(client)
                        group.cancel_scope.cancel()
            except Exception as error:  # whatever ends a session, the next one is tried; the log says why
                trouble = self._why(error)
                if not was_up and _is_closed(_first(error)):
                    # Some servers of the older protocol end when they are asked whether they speak the newer one.
                    self._handshake = "legacy" if self._handshake == "auto" else "auto"
        if not was_up:
            self._tell(trouble)
            self._hurry.clear()
            self._attempted.set()

    def _open(self) -> Client:
        streams = watched(transport(self._server, self._note_http_trouble), self._lose)
        # No cache: a list that is asked for is asked for because it may have changed.
        return Client(streams, mode=self._handshake, cache=None, client_info=_CLIENT, message_handler=self._on_message)

    def _take_up(self, client: Client) -> None:
        if self.trouble is not None:
            log.info("MCP server %r is connected", self.name)
        self.trouble = None
        self._client = client
        self._hurry.clear()
        self._attempted.set()

    def _lose(self, trouble: str = "the connection was lost") -> None:
        """From now on, calls wait for the next session."""
        if self._client is not None:
            self._attempted.clear()
            self._tell(trouble)
        self._client = None
        self._is_lost = True
        self._news.set()

    def _tell(self, trouble: str) -> None:
        if self.trouble is None and not self._scope.cancel_called:
            log.warning("MCP server %r: %s; its tools can't be called until it is back", self.name, trouble)
        self.trouble = trouble

    async def _follow(self, client: Client) -> None:
        """List the tools again whenever they may have changed; return when the session is lost.

        Raises:
            MCPError, TimeoutError, ValidationError, _ListTooLong: they can't be listed any more.
        """
        try:
            while not self._is_lost:
                await self._news.wait()
                self._news.clear()
                if not self._is_lost:
                    with anyio.fail_after(_START_TIMEOUT_S):
                        await self._list(client)
        except Exception as error:
            self._lose(self._why(error))
            raise
        finally:
            self._lose()
            # Leaving now would cut calls that may still be answered; those that can't be are told so by the SDK.
            await self._idle.wait()

    async def _list(self, client: Client) -> None:
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                self._http_trouble = None
                return self._on_tools(found)
        raise _ListTooLong

    async def _hear(self, client: Client) -> None:
        """Ask to be told of changes, which the newer protocol wants; what comes goes to `_on_message`."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        was_heard = False
        while True:
            try:
                async with client.listen(tools_list_changed=True) as events:
                    was_heard = True
                    # What changed until now was not heard. A server that is gone is found to be.
                    self._news.set()
                    async for _ in events:
                        pass
            except (SubscriptionLost, MCPError, TimeoutError):
                if not was_heard:
                    return log.info("MCP server %r does not tell when its tools change", self.name)
            self._news.set()
            await anyio.sleep(_LISTEN_AGAIN_S)

    async def _on_message(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._news.set()

    def _note_http_trouble(self, trouble: str) -> None:
        self._http_trouble = trouble

    def _why(self, error: Exception) -> str:
        error = _first(error)
        if self._http_trouble is not None:
            return self._http_trouble
        if isinstance(error, TimeoutError):
            return f"it does not answer within {_START_TIMEOUT_S:g} s"
        if isinstance(error, OSError) and error.filename is not None:
            return self._shown(f"it can't be started: {error.strerror}: {error.filename}")
        if isinstance(error, _ListTooLong):
            return f"its list of tools has more than {_MAX_PAGES} pages"
        if isinstance(error, ValidationError):
            return "it does not speak MCP as it should"
        if _is_closed(error):
            return "it ended, or closed the connection"
        return self._shown(f"{type(error).__name__}: {error}")

    def _shown(self, text: str) -> str:
        """A text that the server may have had a hand in, as a log may show it: one line, and no secret."""
        printable = "".join(character if character.isprintable() else " " for character in text)
        return without_secrets(self._server, printable[:_MAX_TROUBLE_CHARACTERS])


def _first(error: Exception) -> Exception:
    """What went wrong first: the SDK's tasks raise in groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_closed(error: Exception) -> bool:
    return isinstance(error, MCPError) and error.code == CONNECTION_CLOSED
