"""MCP servers for a test: what they offer, how they are reached, and what is left of their work."""

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast.config.mcp_lock import accepted_now
from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.process import Child
from holdfast.domain.mcp import Definition, HttpServer, Pin, StdioServer, tool_name
from tests.harness.mcp_server import EFFECTS_FILE, PID_FILE, TOOLS_FILE

SCRIPT = Path(__file__).with_name("mcp_server.py")
READ = {"readOnlyHint": True}


def described(
    name: str,
    description: str = "",
    *,
    required: Iterable[str] = (),
    annotations: dict[str, Any] | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """A tool as a server lists it."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {
        "name": name,
        "description": description or f"Does {name}.",
        "inputSchema": schema,
        "annotations": annotations or {},
    }


TEXT = {"type": "string"}
TOOLS = [
    described("echo", annotations=READ, text=TEXT, times={"type": "integer", "default": 1}, required=["text"]),
    described("count", annotations=READ, upto={"type": "integer", "maximum": 10}, required=["upto"]),
    described("leave", marker=TEXT, required=["marker"]),
    described("leave-and-die", marker=TEXT, required=["marker"]),
    described("leave-and-hang", marker=TEXT, required=["marker"]),
    described("fail", annotations=READ),
    described("much", annotations=READ, characters={"type": "integer"}),
    described("draw", annotations={"destructiveHint": False, "idempotentHint": True}),
    described("environment", annotations=READ),
    described("announce", annotations=READ),
]


class Shop:
    """A server of the tests, called `shop`, with a folder for what it offers and what it did."""

    def __init__(self, folder: Path, *, is_old: bool = False, is_abrupt: bool = False) -> None:
        self.folder = folder
        self.pins: dict[str, Pin] = {}
        self._options = [*(["--old"] if is_old else []), *(["--abrupt"] if is_abrupt else [])]
        self._port = free_port()
        self._child: Child | None = None
        self.offers(TOOLS)
        self.accept()

    def offers(self, tools: list[dict[str, Any]]) -> None:
        """Have the server offer these tools from now on; it does not say so by itself."""
        fresh = self.folder / f"{TOOLS_FILE}.new"
        fresh.write_text(json.dumps(tools))
        fresh.replace(self.folder / TOOLS_FILE)

    def accept(self) -> None:
        """Accept what the server offers now."""
        tools = json.loads((self.folder / TOOLS_FILE).read_text())
        self.pins = {
            tool_name("shop", tool["name"]): accepted_now(
                Definition(tool["name"], tool["description"], tool["inputSchema"], tool["annotations"])
            )
            for tool in tools
        }

    def read_pins(self) -> dict[str, Pin]:
        """What is accepted now."""
        return self.pins

    def over_stdio(self, **environment: str) -> StdioServer:
        """The server as a process of the client's."""
        return StdioServer("shop", sys.executable, self.arguments, environment, self.folder)

    def over_http(self, **headers: str) -> HttpServer:
        """The server over HTTP; `serve` starts it."""
        return HttpServer("shop", f"http://127.0.0.1:{self._port}/mcp", headers)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What Python is given to run it over stdio."""
        return (str(SCRIPT), str(self.folder), *self._options)

    async def serve(self) -> None:
        """Start it over HTTP."""
        command = [sys.executable, *self.arguments, "--http", str(self._port)]
        self._child = Child("shop", command, log=self.folder / "log", cwd=self.folder)
        await self._child.wait_until(lambda: is_listening(self._port), timeout_s=60)

    def stop(self) -> None:
        """Kill it, if it was started over HTTP."""
        if self._child is not None:
            self._child.kill()

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process of the server that was started last."""
        return int((self.folder / PID_FILE).read_text())

    @property
    def effects(self) -> list[str]:
        """The markers that its tools have left."""
        path = self.folder / EFFECTS_FILE
        return path.read_text().splitlines() if path.exists() else []
