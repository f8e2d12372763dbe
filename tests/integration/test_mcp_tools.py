"""A run that uses tools of an MCP server, from the message to the reply."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.config.mcp_lock import write_lock
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.mcp_servers import Shop
from tests.harness.servers import Servers
from tests.harness.stage import AGENTS, playing


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The server, and a folder of agents that may use it; two of its tools are accepted."""
    shop = Shop(tmp_path)
    for name in (AGENTS.name, "models.yaml"):
        shutil.copy(AGENTS.with_name(name), tmp_path)
    server = shop.over_stdio()
    servers = {"mcpServers": {"shop": {"command": server.command, "args": list(server.args)}}}
    (tmp_path / ".mcp.json").write_text(json.dumps(servers))
    accepted = ("mcp__shop__echo", "mcp__shop__leave_and_die")
    write_lock(tmp_path / ".mcp.lock.json", {name: shop.pins[name] for name in accepted})
    return shop


@pytest.fixture
async def ada(shop: Shop, running_servers: Servers, provider: ScriptedProvider) -> AsyncIterator[Caller]:
    async with playing(running_servers, provider, f"mcp-{new_tenant()}", shop.folder / AGENTS.name) as stage:
        yield await stage.caller(new_tenant())


async def with_tool(caller: Caller, provider: ScriptedProvider, tool: str, **arguments: str) -> tuple[Json, str]:
    """The tool call of a run, and what the model was told of it."""
    provider.script(ToolCalls([(tool, arguments)]), Text("Done."))
    run = await caller.ask("use the tool", agent="trusting")
    for asked in await caller.pending(run):
        await caller.decide(asked)
        run = await caller.ended(run["id"])
    assert (run["status"], run["reply"]) == ("completed", "Done.")
    call: Json = run["tool_calls"][0]
    return call, provider.requests[-1].last_text


async def test_what_is_accepted_is_used_and_nothing_else(ada: Caller, provider: ScriptedProvider) -> None:
    call, told = await with_tool(ada, provider, "mcp__shop__echo", text="hello")
    assert (call["status"], call["effect"]) == ("succeeded", "read")
    assert "hello" in told

    call, told = await with_tool(ada, provider, "mcp__shop__leave", marker="a")
    assert call["status"] == "failed"
    assert "nobody has accepted it yet" in told


async def test_a_server_that_dies_after_its_effect_leaves_the_call_ambiguous(
    ada: Caller, provider: ScriptedProvider, shop: Shop
) -> None:
    provider.script(ToolCalls([("mcp__shop__leave_and_die", {"marker": "a"})]), Text("Done."))
    run = await ada.ask("use the tool", agent="trusting")
    asked = await ada.only_pending(run)
    assert asked["rule"] == "mcp__shop__leave_and_die declares: confirm always"
    await ada.decide(asked)
    while not (unknown := [one for one in await ada.pending(run) if one["kind"] == "outcome"]):
        run = await ada.run(run["id"])

    assert (await ada.get(f"/v1/tool-calls/{unknown[0]['tool_call_id']}"))["status"] == "ambiguous"
    assert shop.effects == ["a"]
