"""A real MCP server for the tests, as a process: `python mcp_server.py FOLDER [--http PORT] [--old] [--abrupt]`.

What it offers stands in a file, which a test may change while it runs. What its tools change they leave as lines in
another, which tests count. `--old` has it speak only the protocol before 2026, with sessions and a handshake; with
`--abrupt`, it ends when it is asked for the newer one.
"""

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

TOOLS_FILE, EFFECTS_FILE, PID_FILE = "tools.json", "effects", "pid"

#: So that the tests see more than one page.
PAGE = 3

Context = ServerRequestContext[Any, Any]


class Tools:
    """The server's tools: what it says of them stands in the file, what they do stands here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bus = InMemorySubscriptionBus()

    async def list(self, _: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """A page of them."""
        tools = [types.Tool.model_validate(one) for one in json.loads((self._folder / TOOLS_FILE).read_text())]
        start = int(params.cursor) if params is not None and params.cursor else 0
        more = str(start + PAGE) if start + PAGE < len(tools) else None
        return types.ListToolsResult(tools=tools[start : start + PAGE], next_cursor=more)

    async def call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Run one; by the name before the first dot, so that a test can have two of a kind."""
        arguments = params.arguments or {}
        run = getattr(self, f"_{params.name.partition('.')[0].replace('-', '_')}", None)
        if run is None:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name}")
        result = await run(context, **arguments)
        return result if isinstance(result, types.CallToolResult) else _said(str(result))

    async def _echo(self, _: Context, **arguments: Any) -> str:
        return json.dumps(arguments, sort_keys=True)

    async def _count(self, _: Context, upto: int) -> types.CallToolResult:
        return types.CallToolResult(content=[], structured_content={"numbers": list(range(upto))})

    async def _leave(self, _: Context, marker: str) -> str:
        self._leave_effect(marker)
        return f"left {marker}"

    async def _leave_and_die(self, _: Context, marker: str) -> None:
        self._leave_effect(marker)
        os.kill(os.getpid(), signal.SIGKILL)

    async def _leave_and_hang(self, _: Context, marker: str) -> None:
        self._leave_effect(marker)
        await asyncio.Event().wait()

    async def _fail(self, _: Context) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(text="there is no order 7")], is_error=True)

    async def _much(self, _: Context, characters: int) -> str:
        return "x" * characters

    async def _draw(self, _: Context) -> types.CallToolResult:
        blob = types.BlobResourceContents(uri="file:///a.bin", mime_type="application/zip", blob="AAEC")
        parts: list[types.ContentBlock] = [
            types.TextContent(text="a picture"),
            types.ImageContent(data="AAECAw==", mime_type="image/png"),
            types.EmbeddedResource(resource=blob),
            types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///a.txt", text="a text")),
            types.ResourceLink(uri="file:///b.txt", name="b"),
        ]
        return types.CallToolResult(content=parts)

    async def _environment(self, _: Context) -> str:
        return json.dumps(dict(os.environ), sort_keys=True)

    async def _announce(self, context: Context) -> str:
        await self.bus.publish(ToolsListChanged())
        await context.session.send_tool_list_changed()
        return "announced"

    def _leave_effect(self, marker: str) -> None:
        with (self._folder / EFFECTS_FILE).open("a") as effects:
            effects.write(f"{marker}\n")


def _said(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)])


async def _only_the_old_protocol(ctx: Context, call_next: CallNext) -> HandlerResult:
    if ctx.method == "server/discover":
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


async def _abruptly(ctx: Context, call_next: CallNext) -> HandlerResult:
    if ctx.method == "server/discover":
        os._exit(1)
    return await call_next(ctx)


def shop_server(folder: Path, *, is_old: bool = False) -> Server[Any]:
    """The server, to be served over either transport."""
    tools = Tools(folder)
    server: Server[Any] = Server(
        "shop",
        version="1",
        on_list_tools=tools.list,
        on_call_tool=tools.call,
        on_subscriptions_listen=ListenHandler(tools.bus),
    )
    if is_old:
        server.middleware.append(_only_the_old_protocol)
    return server


async def _over_stdio(server: Server[Any], *, is_old: bool) -> None:
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (read, write):
        if is_old:
            await serve_loop(server, read, write, lifespan_state={}, init_options=options)
        else:
            await server.run(read, write, options)


def main() -> None:
    """Serve until the input ends, or the process is told to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--http", type=int)
    parser.add_argument("--old", action="store_true")
    parser.add_argument("--abrupt", action="store_true")
    options = parser.parse_args()
    # All at once: whoever waits for it reads it at any moment.
    written = options.folder / f"{PID_FILE}.new"
    written.write_text(str(os.getpid()))
    written.replace(options.folder / PID_FILE)
    server = shop_server(options.folder, is_old=options.old)
    if options.abrupt:
        server.middleware.insert(0, _abruptly)
    if options.http is None:
        asyncio.run(_over_stdio(server, is_old=options.old))
    else:
        uvicorn.run(server.streamable_http_app(), port=options.http, log_level="warning")


if __name__ == "__main__":
    main()
