"""MCP servers, what they say of their tools, and what was accepted of it.

A server says what it likes of its tools, and may say something else tomorrow: a description is read by the model, as
instructions are. So a tool is used only as a person has accepted it. Its name, description, schema and annotations are
pinned by a digest, and a tool whose digest is another is not used until a person has looked at it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime

from holdfast.domain.confirmations import canonical_digest

#: What OpenAI and Anthropic take as a function's name.
MAX_NAME_CHARACTERS = 64

#: Of a name that is too long, the characters of a digest of it that keep it apart from others.
_DIGEST_CHARACTERS = 8

#: What is shorter than this is no secret, and taking it out would leave holes in every text.
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class StdioServer:
    """A server that is a process of ours. Only its name and command are fit to be shown."""

    name: str
    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path = field(default=Path(), repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show."""
        return (*self.env.values(), *self.args)


@dataclass(frozen=True)
class HttpServer:
    """A server that is reached over streamable HTTP. Only its name is fit to be shown."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show; of `Bearer TOKEN` also the token by itself."""
        return (self.url, *self.headers.values(), *(value.split()[-1] for value in self.headers.values() if value))


McpServer = StdioServer | HttpServer


def without_secrets(server: McpServer, text: str) -> str:
    """A text about a server, which may quote what it was given, as it may be shown."""
    for secret in sorted(server.secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[secret]")
    return text


@dataclass(frozen=True)
class Definition:
    """What a server says of a tool; `name` is the server's own. This, whole, is what a person accepts."""

    name: str
    description: str
    schema: dict[str, Any]
    annotations: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Changes when anything of it does.

        Raises:
            ValueError: it holds a number that has no canonical form.
        """
        return canonical_digest(
            {
                "name": self.name,
                "description": self.description,
                "schema": self.schema,
                "annotations": self.annotations,
            }
        )


@dataclass(frozen=True)
class Pin:
    """A definition as a person accepted it."""

    digest: str
    accepted_at: AwareDatetime
    definition: Definition


class PinState(StrEnum):
    """Whether a tool may be used."""

    READY = "ready"  #: it is as it was accepted
    NOT_ACCEPTED = "not accepted"  #: nobody has accepted it yet
    CHANGED = "changed"  #: it is not what was accepted


def pin_state(definition: Definition, pin: Pin | None) -> PinState:
    """How a tool's definition stands to what was accepted of it (`None`: nothing was)."""
    if pin is None:
        return PinState.NOT_ACCEPTED
    return PinState.READY if definition.digest == pin.digest else PinState.CHANGED


def tool_prefix(server: str) -> str:
    """What the names of a server's tools begin with."""
    return f"mcp__{_plain(server)}__"


def tool_name(server: str, tool: str) -> str:
    """What a server's tool is called here: `mcp__github__create_issue`; at most `MAX_NAME_CHARACTERS`."""
    name = tool_prefix(server) + _plain(tool)
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.sha256(f"{server}\n{tool}".encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{name[: MAX_NAME_CHARACTERS - _DIGEST_CHARACTERS - 1]}_{digest}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name)
