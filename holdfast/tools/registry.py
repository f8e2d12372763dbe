"""Tools by name: what a tool is, whatever it is made of, and the ones of an installation.

`holdfast.tools.functions` makes them of plain typed functions, `holdfast.tools.mcp` of what MCP servers offer.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from holdfast.domain.agents import AgentSpec
from holdfast.domain.confirmations import canonical_digest
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.tools import Declaration, Described, Terms, terms


class ArgumentsRefused(Exception):
    """The arguments don't fit the tool's schema; the text says why, for the model."""


@dataclass(frozen=True)
class Tool:
    """A tool.

    Args:
        name: what the model calls it.
        description: what the model is told of it.
        schema: the JSON Schema of its arguments.
        declaration: what its author says of it.
        takes_key: it is given the idempotency key, and does a key's work once.
        validate: a JSON value as validated arguments, defaults filled in; raises ArgumentsRefused.
        call: runs it, with validated arguments and an idempotency key; answers with a value, or something to await.
        is_async: `call` answers at once with something to await; otherwise it needs a thread of its own.
        for_agent: the tool as one agent may use it, with the same schema; None: it is the same for all.
        disabled: why it can't be used now, for the model; it is then offered to none, and refuses every call.
    """

    name: str
    description: str
    schema: dict[str, Any]
    declaration: Declaration
    takes_key: bool
    validate: Callable[[Any], dict[str, Any]] = field(repr=False)
    call: Callable[[dict[str, Any], str], Any] = field(repr=False)
    is_async: bool = False
    for_agent: Callable[[AgentSpec], "Tool"] | None = field(default=None, repr=False)
    disabled: str | None = None

    def bound_to(self, agent: AgentSpec) -> "Tool":
        """The tool as this agent may use it: what is offered to its model, and what is called."""
        return self if self.for_agent is None else self.for_agent(agent)

    def terms(self, ruled: Declaration | None = None) -> Terms:
        """What holds for a call, where the policy of an agent declares `ruled`, or nothing."""
        return terms(self.declaration, ruled or Declaration(), takes_key=self.takes_key)

    @cached_property
    def schema_digest(self) -> str:
        """Changes when the schema does; part of what a person confirms."""
        return canonical_digest(self.schema)

    @cached_property
    def as_function(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}

    def parse(self, raw: str) -> dict[str, Any]:
        """The model's arguments as validated JSON, with defaults filled in: what is confirmed, and what runs.

        Raises:
            ArgumentsRefused: they are not JSON, or don't fit the schema; or the tool is disabled.
        """
        try:
            values = json.loads(raw) if raw.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ArgumentsRefused(f"the arguments are not valid JSON: {error}") from error
        return self.check(values)

    def check(self, values: Any) -> dict[str, Any]:
        """Arguments that were read already, validated in the same way.

        Raises:
            ArgumentsRefused: they don't fit the schema, or have no canonical form; or the tool is disabled.
        """
        if self.disabled is not None:
            raise ArgumentsRefused(self.disabled)
        try:
            checked = self.validate(values)
            # Shown here, and not at the moment a person is asked: NaN or an integer beyond 2**53 has no canonical form.
            canonical_digest(checked)
        except (ValueError, RecursionError) as error:
            raise ArgumentsRefused(f"the arguments can't be taken: {error}") from error
        return checked


class ToolRegistry:
    """The tools of an installation. Those that are given at the start stay; other sources may come and change later."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._by_source: dict[str, dict[str, Tool]] = {}
        self._tools: dict[str, Tool] = {}
        self.replace("", tools)

    def replace(self, source: str, tools: Iterable[Tool]) -> None:
        """Take the tools of a source, such as an MCP server, in place of those it gave before.

        Raises:
            ConfigurationError: two have the same name; nothing is changed then.
        """
        taken = {name for other, theirs in self._by_source.items() if other != source for name in theirs}
        fresh: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in taken or tool.name in fresh:
                raise ConfigurationError(f"tool {tool.name}: defined twice; tool names must differ")
            fresh[tool.name] = tool
        self._by_source[source] = fresh
        self._tools = {name: tool for theirs in self._by_source.values() for name, tool in theirs.items()}

    def get(self, name: str) -> Tool | None:
        """The tool of this name, which may be disabled; None: there is none."""
        return self._tools.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    @property
    def described(self) -> dict[str, Described]:
        """What a policy can be checked against, by name."""
        return {
            tool.name: Described(tool.declaration, tuple(tool.schema.get("properties", ())))
            for tool in self._tools.values()
        }

    def matching(self, patterns: Iterable[str]) -> list[Tool]:
        """The tools that can be offered and whose name matches one of the patterns."""
        wanted = list(patterns)
        return [
            tool
            for tool in self._tools.values()
            if tool.disabled is None and any(fnmatchcase(tool.name, pattern) for pattern in wanted)
        ]
