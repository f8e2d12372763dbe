"""`holdfast tools`: which tools there are, one of them run by hand, and the consent to those of MCP servers."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.agents_file import AgentsOption, agents_file
from holdfast.cli.output import AsJson, show_json, show_table
from holdfast.domain.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.domain.mcp import Definition, McpServer, Pin
    from holdfast.tools.mcp import McpServers, Offer
    from holdfast.tools.registry import Tool, ToolRegistry
    from holdfast.tools.run import Outcome

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]

#: How long servers have to answer; `npx` may download one first.
_WAIT_S = 60.0

#: Lines of a difference that are shown; the lock file has the whole.
_MOST_LINES = 40

app = typer.Typer(help="Tools, and the consent to those of MCP servers.", no_args_is_help=True)


class ToolFailed(HoldfastError):
    """A tool did not do what it was asked to."""


@app.callback()
def _group() -> None:
    """Tools, and the consent to those of MCP servers."""


@app.command("list")
def list_tools(agents: AgentsOption = None, as_json: AsJson = False) -> None:
    """Every tool, where it is from, and whether it can be used. Connects to the MCP servers."""
    import asyncio

    asyncio.run(_list(agents_file(agents), as_json))


@app.command("call")
def call_tool(
    name: Annotated[str, typer.Argument(help="The tool's name.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, as a JSON object.")] = "{}",
    yes: Yes = False,
    agents: AgentsOption = None,
) -> None:
    """Run one tool here and now, and print its result. No policy is asked, and nothing is recorded."""
    import asyncio

    asyncio.run(_call(agents_file(agents), name, arguments, yes))


@app.command()
def accept(
    names: Annotated[list[str] | None, typer.Argument(help="The tools; without any, all of them.")] = None,
    yes: Yes = False,
    agents: AgentsOption = None,
) -> None:
    """Accept tools of MCP servers as they are now: shows what is new and what has changed, and asks."""
    import asyncio

    asyncio.run(_accept(agents_file(agents), names or [], yes))


@dataclass(frozen=True)
class _Installation:
    """The tools of an installation. `sources`: the module that a tool is from."""

    registry: "ToolRegistry"
    sources: dict[str, str]
    servers: "McpServers"
    lock: Path | None
    pins: "dict[str, Pin]"


@asynccontextmanager
async def _installed(agents: Path, tool: str | None = None) -> AsyncIterator[_Installation]:
    """What is installed, connected; with a tool, only to the server that has it."""
    import logging
    import os

    from holdfast.config import agents_yaml
    from holdfast.config.mcp_json import load_mcp
    from holdfast.config.mcp_lock import lock_path, read_lock
    from holdfast.domain.mcp import tool_prefix
    from holdfast.tools.functions import tools_of_modules
    from holdfast.tools.mcp import McpServers
    from holdfast.tools.registry import ToolRegistry

    # What is wrong with servers and tools is told below, once.
    logging.getLogger("holdfast").addHandler(logging.NullHandler())
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    # A user's tools are found where the user stands, as they are by the worker.
    sys.path.insert(0, str(Path.cwd()))
    file = agents_yaml.load_agents(agents)
    by_module = {name: tools_of_modules([name]) for name in file.tool_modules}
    registry = ToolRegistry([one for tools in by_module.values() for one in tools])
    sources = {one.name: module for module, tools in by_module.items() for one in tools}
    reached: list[McpServer] = []
    lock, pins = None, {}
    if file.mcp_path is not None:
        lock = lock_path(file.mcp_path)
        pins = read_lock(lock)
        servers = load_mcp(file.mcp_path, os.environ).servers
        reached = [one for one in servers if tool is None or tool.startswith(tool_prefix(one.name))]
    async with McpServers(reached, registry, lambda: pins, _WAIT_S) as mcp_servers:
        yield _Installation(registry, sources, mcp_servers, lock, pins)


def _tell_troubles(installation: _Installation) -> bool:
    """Whether there was something to tell."""
    for name, trouble in installation.servers.troubles.items():
        typer.echo(f"MCP server {name!r}: {trouble}", err=True)
    return bool(installation.servers.troubles)


async def _list(agents: Path, as_json: bool) -> None:
    async with _installed(agents) as installation:
        offers = {offer.name: offer for offer in installation.servers.offers}
        names = dict.fromkeys([*installation.registry.names, *offers])
        found = [_row(installation, name, offers.get(name)) for name in names]
        has_troubles = _tell_troubles(installation)
    if as_json:
        show_json({"object": "list", "data": found})
    else:
        columns = ["name", "effect", "idempotency", "source", "state"]
        show_table("tools", columns, [[one[column] for column in columns] for one in found])
    if has_troubles:
        raise typer.Exit(1)


def _row(installation: _Installation, name: str, offer: "Offer | None") -> dict[str, str]:
    tool = installation.registry.get(name)
    row = {
        "name": name,
        "effect": str(tool.terms().effect) if tool else "unknown",
        "idempotency": str(tool.terms().idempotency) if tool else "unknown",
        "source": installation.sources.get(name, ""),
        "state": "ready",
    }
    if offer is not None:
        state = f"unusable: {offer.unusable}" if offer.unusable else str(offer.state)
        row |= {"source": f"MCP server {offer.server}", "state": state}
    return row


async def _call(agents: Path, name: str, arguments: str, yes: bool) -> None:
    from holdfast.domain.errors import InvalidInput
    from holdfast.domain.ids import new_tool_call_id
    from holdfast.tools.registry import ArgumentsRefused
    from holdfast.tools.run import ToolRunner

    async with _installed(agents, name) as installation:
        tool = _required(installation, name)
        try:
            values = tool.parse(arguments)
        except ArgumentsRefused as refused:
            raise InvalidInput("arguments", str(refused)) from None
        _require_consent(tool, yes)
        outcome = await ToolRunner().run(tool, values, new_tool_call_id())
    typer.echo(_result(outcome))


def _required(installation: _Installation, name: str) -> "Tool":
    from holdfast.config.messages import did_you_mean
    from holdfast.domain.errors import InvalidInput

    tool = installation.registry.get(name)
    if tool is not None:
        return tool
    if _tell_troubles(installation):
        raise InvalidInput("name", f"There is no tool {name!r} while its MCP server can't be reached.")
    mend = did_you_mean(name, installation.registry.names) or "`holdfast tools list` shows them all"
    raise InvalidInput("name", f"There is no tool {name!r}; {mend}.")


def _require_consent(tool: "Tool", yes: bool) -> None:
    from holdfast.domain.tools import Effect

    if not yes and tool.terms().effect is not Effect.READ:
        raise ToolFailed(f"{tool.name} changes something ({tool.terms().effect}); it was not run. Run it with --yes")


def _result(outcome: "Outcome") -> str:
    from holdfast.tools.run import Raised, Returned, TimedOut

    match outcome:
        case Returned(result):
            return result
        case Raised(error):
            raise ToolFailed(_plain(error))
        case TimedOut(timeout_s):
            raise ToolFailed(f"no answer within {timeout_s:g} s; nobody knows whether its effect happened")
    raise ToolFailed(f"{_plain(outcome.reason)}; nobody knows whether its effect happened")


async def _accept(agents: Path, names: list[str], yes: bool) -> None:
    from holdfast.config.mcp_lock import accepted_now, write_lock

    async with _installed(agents) as installation:
        offers = {offer.name: offer for offer in installation.servers.offers}
        has_troubles = _tell_troubles(installation)
    if installation.lock is None:
        raise ToolFailed(f"{agents}: there is no file of MCP servers; write .mcp.json beside it")
    pins = dict(installation.pins)
    for name in names or offers:
        offer = _usable(offers, name)
        if offer is None or not _is_news(offer, pins.get(name)):
            continue
        _show_news(offer, pins.get(name))
        if yes or typer.confirm(f"Accept {name}?", default=False):
            pins[name] = accepted_now(offer.definition)
    if not names and not has_troubles:
        _forget_the_gone(pins, offers, yes)
    if pins == installation.pins:
        typer.echo("Nothing is changed.")
    else:
        write_lock(installation.lock, pins)
        typer.echo(f"{installation.lock} is written. A worker that runs reads it when it is started anew.")
    if has_troubles:
        raise typer.Exit(1)


def _usable(offers: "dict[str, Offer]", name: str) -> "Offer | None":
    """The offer of a name, if it can be accepted."""
    from holdfast.config.messages import did_you_mean
    from holdfast.domain.errors import InvalidInput

    offer = offers.get(name)
    if offer is not None and offer.unusable is None:
        return offer
    if offer is not None:
        typer.echo(f"{name} can't be used: {offer.unusable}", err=True)
        return None
    mend = did_you_mean(name, offers) or "`holdfast tools list` shows them all"
    raise InvalidInput("name", f"No MCP server has a tool {name!r}; {mend}.")


def _is_news(offer: "Offer", pin: "Pin | None") -> bool:
    return pin is None or pin.digest != offer.definition.digest


def _forget_the_gone(pins: "dict[str, Pin]", offers: "dict[str, Offer]", yes: bool) -> None:
    """Take out what no server offers any more: what comes back under that name is asked about again."""
    for name in sorted(pins.keys() - offers.keys()):
        if yes or typer.confirm(f"{name} is gone. Forget it?", default=False):
            typer.echo(f"{name}: forgotten")
            del pins[name]


def _show_news(offer: "Offer", pin: "Pin | None") -> None:
    import difflib

    was = [] if pin is None else _shown(pin.definition)
    lines = list(difflib.unified_diff(was, _shown(offer.definition), "accepted", "now", n=1, lineterm=""))[2:]
    typer.echo(f"{offer.name}: {'new' if pin is None else 'changed'}")
    for line in lines[:_MOST_LINES]:
        typer.echo(f"  {line}")
    if len(lines) > _MOST_LINES:
        typer.echo(f"  … and {len(lines) - _MOST_LINES} more lines")


def _shown(definition: "Definition") -> list[str]:
    """A definition as lines that can be compared."""
    import json

    said: dict[str, Any] = {"schema": definition.schema, "annotations": definition.annotations}
    text = json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False)
    return [_plain(line) for line in (*definition.description.splitlines(), *text.splitlines())]


def _plain(line: str) -> str:
    """A line without what a terminal would obey: who accepts it must see what is there."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
