"""Tools from MCP servers, each used only as a person has accepted it.

A server's list of tools is taken when a session with it begins, and whenever it may have changed. Each definition is
compared with the one that was accepted (`holdfast.domain.mcp` says why), and a tool whose definition is another is
disabled: it is not offered, and a call of it is refused.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import mcp_types
from mcp_types import CallToolResult, ToolAnnotations

from holdfast.domain.confirmations import canonical_digest
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.json_schema import JsonSchema, SchemaUnusable
from holdfast.domain.mcp import Definition, McpServer, Pin, PinState, pin_state, tool_name
from holdfast.domain.tools import Declaration, Effect, Idempotency
from holdfast.tools.mcp_session import Refused, ServerSession
from holdfast.tools.registry import ArgumentsRefused, Tool, ToolRegistry
from holdfast.tools.run import NothingHappened

log = logging.getLogger(__name__)

#: How long the start of a worker waits for servers. One that needs longer joins later.
START_WAIT_S = 10.0


class McpToolError(NothingHappened):
    """The server says that the tool failed; the text is what it says."""


class ToolDisabled(NothingHappened):
    """The tool is not, or no longer, what was accepted. It was not run."""


@dataclass(frozen=True)
class Offer:
    """A tool that a server offers, under the name that agents know it by.

    `unusable` says why no tool can be made of it; None: one can.
    """

    name: str
    server: str
    definition: Definition
    annotations: ToolAnnotations
    state: PinState
    unusable: str | None


class McpServers:
    """The servers of an installation. While the block runs, their tools are in the registry.

    Entering it waits a moment for the servers. One that can't be reached is tried again and again, and its tools join
    when it is there.

    Args:
        servers: how they are reached.
        registry: what their tools join.
        read_pins: what was accepted, by name; asked each time that a server has listed its tools.
        wait_s: how long entering waits.
    """

    def __init__(
        self,
        servers: Sequence[McpServer],
        registry: ToolRegistry,
        read_pins: Callable[[], Mapping[str, Pin]],
        wait_s: float = START_WAIT_S,
    ) -> None:
        self._links = [_Link(server, registry, read_pins) for server in servers]
        self._wait_s = wait_s

    async def __aenter__(self) -> Self:
        for link in self._links:
            link.session.start()
        attempts = [asyncio.create_task(link.session.attempted()) for link in self._links]
        if attempts:
            await asyncio.wait(attempts, timeout=self._wait_s)
        for attempt in attempts:
            attempt.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(link.session.stop() for link in self._links))

    @property
    def offers(self) -> list[Offer]:
        """What the servers offer, whether it may be used or not."""
        return [offer for link in self._links for offer in link.offers]

    @property
    def troubles(self) -> dict[str, str]:
        """What is wrong with servers, by name: they can't be reached, or their tools can't be taken."""
        return {link.session.name: trouble for link in self._links if (trouble := link.trouble) is not None}


class _Link:
    """A server, and its tools in the registry."""

    def __init__(self, server: McpServer, registry: ToolRegistry, read_pins: Callable[[], Mapping[str, Pin]]) -> None:
        self.session = ServerSession(server, self._take)
        self.offers: list[Offer] = []
        self._source = f"MCP server {server.name!r}"
        self._registry = registry
        self._read_pins = read_pins
        self._clash: str | None = None
        self._told: set[str] = set()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the server."""
        return self.session.trouble or self._clash or (None if self.session.is_connected else "it does not answer yet")

    def _take(self, listed: list[mcp_types.Tool]) -> None:
        try:
            self.offers = _offers(self.session.name, listed, self._read_pins())
            self._registry.replace(self._source, [self._tool(offer) for offer in self.offers if not offer.unusable])
            self._clash = None
        except ConfigurationError as error:
            # Of two tools that share a name, it can't be told which one is meant: none of the server's is used.
            self.offers = []
            self._registry.replace(self._source, [])
            self._clash = str(error)
            log.error("%s: none of its tools can be used: %s", self._source, error)
        self._tell()

    def _tell(self) -> None:
        """A line for each tool that can't be used, when that is news."""
        lines = {line for offer in self.offers if (line := _obstacle(offer)) is not None}
        for line in sorted(lines - self._told):
            log.warning("%s", line)
        self._told = lines

    def _tool(self, offer: Offer) -> Tool:
        schema = offer.definition.schema
        return Tool(
            name=offer.name,
            description=offer.definition.description or offer.definition.name,
            schema=schema,
            declaration=declaration_from(offer.annotations),
            takes_key=False,
            validate=partial(_validated, JsonSchema(schema), schema),
            call=partial(self._call, offer),
            is_async=True,
            disabled=None if offer.state is PinState.READY else _obstacle(offer),
        )

    async def _call(self, offer: Offer, arguments: dict[str, Any], _: str) -> Any:
        try:
            result = await self.session.call(offer.definition.name, arguments, partial(self._require_unchanged, offer))
        except Refused as refused:
            raise McpToolError(str(refused)) from None
        if result.is_error:
            raise McpToolError(_text(result) or "the server says that it failed, and not why")
        return _value(result)

    def _require_unchanged(self, offer: Offer) -> None:
        # A call may have waited for days for its confirmation, and the server may be another since.
        now = next((one for one in self.offers if one.name == offer.name), None)
        if now is None:
            raise ToolDisabled(f"the MCP server {offer.server!r} has no tool {offer.definition.name!r} any more")
        if now.state is not PinState.READY or now.definition.digest != offer.definition.digest:
            raise ToolDisabled(_obstacle(now) or f"{offer.name} has changed since this call was approved")


def declaration_from(annotations: ToolAnnotations) -> Declaration:
    """What a server says of a tool, in our words. What it does not say is left to the policy, or taken at its worst.

    Unless the server says that it destroys nothing, a person confirms each call.
    """
    effect = None
    if annotations.read_only_hint:
        effect = Effect.READ
    elif annotations.destructive_hint is not None:
        effect = Effect.IRREVERSIBLE if annotations.destructive_hint else Effect.REVERSIBLE
    is_harmless = annotations.read_only_hint or annotations.destructive_hint is False
    return Declaration(
        effect=effect,
        idempotency=Idempotency.NATURAL if annotations.idempotent_hint else None,
        confirm=None if is_harmless else "always",
    )


def _offers(server: str, listed: Sequence[mcp_types.Tool], pins: Mapping[str, Pin]) -> list[Offer]:
    """What a server offers.

    Raises:
        ConfigurationError: two of its tools would have the same name here.
    """
    offers: dict[str, Offer] = {}
    for tool in listed:
        offer = _offer(server, tool, pins)
        if offer.name in offers:
            names = f"{offers[offer.name].definition.name!r} and {tool.name!r}"
            raise ConfigurationError(f"MCP server {server!r}: its tools {names} would both be called {offer.name}")
        offers[offer.name] = offer
    return list(offers.values())


def _offer(server: str, tool: mcp_types.Tool, pins: Mapping[str, Pin]) -> Offer:
    name = tool_name(server, tool.name)
    annotations = tool.annotations or ToolAnnotations()
    said = annotations.model_dump(mode="json", by_alias=True, exclude_none=True)
    definition = Definition(tool.name, tool.description or tool.title or "", tool.input_schema, said)
    unusable = _why_unusable(definition)
    state = PinState.NOT_ACCEPTED if unusable else pin_state(definition, pins.get(name))
    return Offer(name, server, definition, annotations, state, unusable)


def _why_unusable(definition: Definition) -> str | None:
    try:
        JsonSchema(definition.schema)
        canonical_digest(definition.schema)
    except SchemaUnusable as unusable:
        return f"its schema can't be used. {unusable}"
    except (ValueError, RecursionError):
        return "its schema holds a number that has no canonical form, or is nested too deeply"
    return None


def _obstacle(offer: Offer) -> str | None:
    """Why an offer can't be used, and what to do; None: it can."""
    if offer.unusable is not None:
        return f"The tool {offer.name} can't be used: {offer.unusable}"
    mend = f"A person has to look at it: `holdfast tools accept {offer.name}`"
    if offer.state is PinState.NOT_ACCEPTED:
        return f"The tool {offer.name} is disabled: nobody has accepted it yet. {mend}"
    if offer.state is PinState.CHANGED:
        return f"The tool {offer.name} is disabled: it has changed since it was accepted. {mend}"
    return None


# Arguments and results


def _validated(schema: JsonSchema, said: dict[str, Any], values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ArgumentsRefused("the arguments don't fit the tool's schema: arguments: it is not an object")
    try:
        filled = _with_defaults(said, values)
        wrong = schema.errors(filled)
        if not wrong:
            return filled
        # A server's default need not fit the server's own schema; then the server fills it in as it likes.
        if not schema.errors(values):
            return values
    except SchemaUnusable as unusable:
        raise ArgumentsRefused(f"the tool's schema can't be applied. {unusable}") from None
    raise ArgumentsRefused(f"the arguments don't fit the tool's schema: {_explained(wrong)}")


def _with_defaults(schema: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    defaults = {
        name: deepcopy(said["default"])
        for name, said in properties.items()
        if isinstance(said, dict) and "default" in said
    }
    return {**defaults, **values}


def _explained(wrong: list[tuple[str, str]]) -> str:
    return "; ".join(f"{path.removeprefix('$').lstrip('.') or 'arguments'}: {what}" for path, what in wrong)


def _value(result: CallToolResult) -> Any:
    """What a result says, for the model: the structured content, else the text."""
    return _text(result) if result.structured_content is None else result.structured_content


def _text(result: CallToolResult) -> str:
    return "\n".join(_block(block) for block in result.content)


def _block(block: mcp_types.ContentBlock) -> str:
    """A part of a result as text. What is no text is described: a model could not read it here."""
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.ImageContent(data=data, mime_type=kind) | mcp_types.AudioContent(data=data, mime_type=kind):
            return _described(block.type, kind, data)
        case mcp_types.ResourceLink(uri=uri):
            return f"[link: {uri}]"
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.EmbeddedResource(resource=resource):
            return _described("resource", resource.mime_type or "of unknown type", getattr(resource, "blob", ""))


def _described(what: str, kind: str, base64: str) -> str:
    size = len(base64) * 3 // 4 - base64[-2:].count("=")
    return f"[{what}: {kind}, {size:,} bytes, not shown]"
