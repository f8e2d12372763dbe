"""`.mcp.json`: the MCP servers, in the form that other clients have made usual.

    {"mcpServers": {
        "files":  {"command": "npx", "args": ["-y", "some-server", "."], "env": {"TOKEN": "${FILES_TOKEN}"}},
        "github": {"type": "http", "url": "https://…/mcp", "headers": {"Authorization": "Bearer ${GITHUB_TOKEN}"}}
    }}

Any text may name variables: `${NAME}`, or `${NAME:-default}` for when it is unset or empty. Their values are secrets:
no repr and no message here shows one, and the log is told which they are.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag

from holdfast.config.json_source import JsonSource, read_json
from holdfast.config.messages import Key, Mistake, configuration_error, did_you_mean
from holdfast.config.shape import OpenShape, fit, tag
from holdfast.domain.mcp import HttpServer, McpServer, StdioServer, tool_prefix
from holdfast.secrecy.redaction import learn_named

_SERVERS = "mcpServers"

_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def _http_url(url: str) -> str:
    if not re.match(r"https?://[^/\s]", url):
        raise ValueError("is not an address that begins with https:// or http://")
    return url


def _headers(headers: dict[str, str]) -> dict[str, str]:
    # Refused here: what the HTTP library says of such a header quotes its value.
    if not all(_HEADER_NAME.fullmatch(name) for name in headers):
        raise ValueError("holds a name that no header can have")
    for name, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} holds a character that no header can have")
    return headers


class StdioShape(OpenShape):
    """A server to be started."""

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default={})
    cwd: str = "."


class HttpShape(OpenShape):
    """A server to be reached."""

    type: Literal["http", "streamable-http"] = "http"
    url: Annotated[str, AfterValidator(_http_url)]
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default={})


_STDIO, _HTTP = tag("stdio"), tag("http")


def _form_of_server(value: Any) -> str:
    # With a type or an address it is one of HTTP, so that a mistake in it is told in the right words.
    if isinstance(value, dict):
        return _HTTP if value.get("type", "stdio") != "stdio" or "url" in value else _STDIO
    return _HTTP if isinstance(value, HttpShape) else _STDIO


Server = Annotated[
    Annotated[StdioShape, Tag(_STDIO)] | Annotated[HttpShape, Tag(_HTTP)], Discriminator(_form_of_server)
]


class McpShape(OpenShape):
    """The file. The field is called as its key is."""

    mcpServers: dict[Annotated[str, Field(min_length=1)], Server]


@dataclass(frozen=True)
class McpFile:
    """What a file says, with variables put in."""

    path: Path
    servers: tuple[McpServer, ...]
    warnings: tuple[str, ...]


def load_mcp(path: Path, environ: Mapping[str, str]) -> McpFile:
    """Read `.mcp.json`, and put in the variables that it names.

    Args:
        path: the file.
        environ: where `${NAME}` is looked up.

    Raises:
        ConfigurationError: the file is wrong, or a variable that it names is not set; a line for each mistake.
    """
    source = read_json(path)
    _refuse_what_is_neither(source)
    unset: list[Mistake] = []
    data = _expanded(source, source.data, (), environ, unset)
    if unset:
        raise configuration_error(unset)
    shape = fit(source, McpShape, data)
    _learn_secrets(shape)
    _refuse_same_prefix(source, list(shape.mcpServers))
    return McpFile(
        path=path,
        servers=tuple(_server(path, name, server) for name, server in shape.mcpServers.items()),
        warnings=tuple(_unknown_keys(source, shape)),
    )


def _learn_secrets(shape: McpShape) -> None:
    """Have no log and no error of this process show what a server is given as a secret."""
    for server in shape.mcpServers.values():
        if isinstance(server, HttpShape):
            learn_named([*server.headers.items(), ("", server.url)])
        else:
            learn_named([*server.env.items(), *(("", argument) for argument in server.args)])


def _server(path: Path, name: str, shape: StdioShape | HttpShape) -> McpServer:
    if isinstance(shape, HttpShape):
        return HttpServer(name, shape.url, shape.headers)
    # From the file's folder, so that it means the same wherever the worker is started.
    return StdioServer(name, shape.command, shape.args, shape.env, path.parent.resolve() / shape.cwd)


def _refuse_what_is_neither(source: JsonSource) -> None:
    """Servers whose form is not ours are told in words of their own, and not in those of the shape nearest to it."""
    data = source.data
    servers = data.get(_SERVERS) if isinstance(data, dict) else None
    if not isinstance(servers, dict):
        return
    mistakes = [
        source.mistake((_SERVERS, name), *wrong)
        for name, server in servers.items()
        if isinstance(server, dict) and (wrong := _what_is_neither(server)) is not None
    ]
    if mistakes:
        raise configuration_error(mistakes)


def _what_is_neither(server: dict[str, Any]) -> tuple[str, str] | None:
    if server.get("type") == "sse":
        return "the transport sse is not supported: MCP has replaced it", 'use the server\'s address for "type": "http"'
    if "command" in server and "url" in server:
        return "has both a command and a url", "remove one"
    if "command" not in server and "url" not in server:
        return "has neither a command nor a url", "add one"
    return None


def _refuse_same_prefix(source: JsonSource, names: list[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(tool_prefix(name), name)
        if other != name:
            what = f"its tools would be called {tool_prefix(name)}…, as those of {other!r}"
            raise configuration_error([source.mistake((_SERVERS, name), what, "rename one of the two")])


# Variables


def _expanded(source: JsonSource, value: Any, at: Key, environ: Mapping[str, str], unset: list[Mistake]) -> Any:
    if _is_foreign(at):
        return value
    if isinstance(value, dict):
        return {name: _expanded(source, inner, (*at, name), environ, unset) for name, inner in value.items()}
    if isinstance(value, list):
        return [_expanded(source, inner, (*at, place), environ, unset) for place, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def value_of(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name is None:
            mend = "write ${NAME} or ${NAME:-default}"
            unset.append(source.mistake(at, "holds a ${ that does not name a variable", mend))
            return ""
        # An empty variable is how docker-compose passes one that is not set.
        given = environ.get(name, "").strip() or default
        learn_named([(name, given or "")])
        if given is None:
            unset.append(source.mistake(at, f"{name} is not set", f"set it, or write ${{{name}:-default}}"))
        return given or ""

    return _VARIABLE.sub(value_of, value)


# Keys of other clients


def _is_foreign(at: Key) -> bool:
    """Whether a key is another client's, whose variables are not ours to look up."""
    is_ours = at[:1] in ((), (_SERVERS,))
    return not is_ours or (len(at) > 2 and at[2] not in {*StdioShape.model_fields, *HttpShape.model_fields})


def _unknown_keys(source: JsonSource, shape: McpShape) -> Iterator[str]:
    parts: list[tuple[Key, BaseModel]] = [((), shape)]
    parts += [((_SERVERS, name), server) for name, server in shape.mcpServers.items()]
    for at, part in parts:
        known = list(type(part).model_fields)
        for key in part.model_extra or {}:
            yield str(source.mistake((*at, key), "is not used here", did_you_mean(key, known)))
