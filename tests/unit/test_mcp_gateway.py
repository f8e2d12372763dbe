"""What a gateway before an MCP server answers in its place: did the call reach the server, or does nobody know?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.dev.serving import serving
from holdfast.domain.mcp import HttpServer
from holdfast.tools.mcp import McpServers
from holdfast.tools.registry import ToolRegistry
from holdfast.tools.run import Outcome, Raised, ToolRunner, Unknown
from tests.harness.mcp_server import shop_server
from tests.harness.mcp_servers import Shop


class Gateway:
    """An ASGI application before another, which answers calls of tools itself."""

    def __init__(self, app: Any, status: int, kind: str) -> None:
        self._app = app
        self._status = status
        self._kind = kind

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = dict(scope.get("headers", [])).get(b"mcp-method")
        if method != b"tools/call":
            return await self._app(scope, receive, send)  # type: ignore[no-any-return]  # ASGI returns nothing
        headers = [(b"content-type", self._kind.encode())]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<html>"})


@asynccontextmanager
async def behind_a_gateway(shop: Shop, status: int, kind: str) -> AsyncIterator[str]:
    app = Gateway(shop_server(shop.folder).streamable_http_app(), status, kind)
    async with serving(app) as url:
        yield f"{url}/mcp"


async def outcome_behind(tmp_path: Path, status: int, kind: str = "text/html") -> Outcome:
    """What becomes of a call that a gateway answers."""
    shop, registry = Shop(tmp_path), ToolRegistry([])
    async with behind_a_gateway(shop, status, kind) as url:
        server = HttpServer("shop", url, {"Authorization": "Bearer canary"})
        async with McpServers([server], registry, shop.read_pins):
            tool = registry.get("mcp__shop__leave")
            assert tool is not None
            outcome = await ToolRunner().run(tool, {"marker": "a"}, "call_1")
    assert shop.effects == []
    assert "canary" not in str(outcome)
    return outcome


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 429])
async def test_what_refuses_the_call_says_that_it_was_not_run(tmp_path: Path, status: int) -> None:
    outcome = await outcome_behind(tmp_path, status)

    assert isinstance(outcome, Raised)
    assert f"it answers with status {status}; it was not run" in outcome.error


@pytest.mark.parametrize("status", [200, 202, 500, 502, 503, 504])
async def test_what_says_nothing_of_the_call_leaves_its_outcome_unknown(tmp_path: Path, status: int) -> None:
    assert isinstance(await outcome_behind(tmp_path, status), Unknown)


async def test_an_answer_that_is_no_result_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    assert isinstance(await outcome_behind(tmp_path, 200, "application/json"), Unknown)
