"""`.mcp.json`: what is read, what is put in, and how mistakes are told."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import agents_yaml
from holdfast.config.mcp_json import McpFile, load_mcp
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.mcp import HttpServer, StdioServer

AGENTS = """
version: 1
{mcp}
agents:
  support:
    model: quality
    tools: {{"mcp__shop__*": confirm, "mcp__*": allow, "mcp__shpo__*": allow, mcp__shop__buy: deny}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".mcp.json"


def loaded(path: Path, servers: Any, **environ: str) -> McpFile:
    path.write_text(json.dumps({"mcpServers": servers}))
    return load_mcp(path, environ)


def complaint(path: Path, servers: Any, **environ: str) -> str:
    """What is said of a file, without its path."""
    with pytest.raises(ConfigurationError) as raised:
        loaded(path, servers, **environ)
    assert "canary" not in str(raised.value)
    return str(raised.value).replace(f"{path}: ", "")


def test_both_kinds_of_server_are_read(path: Path) -> None:
    file = loaded(
        path,
        {
            "files": {"command": "npx", "args": ["-y", "server"], "env": {"A": "b"}, "cwd": "sub"},
            "github": {"type": "http", "url": "https://github.test/mcp", "headers": {"X-Key": "c"}},
            "gitlab": {"type": "streamable-http", "url": "https://gitlab.test/mcp"},
            "here": {"type": "stdio", "command": "server"},
        },
    )

    assert file.servers == (
        StdioServer("files", "npx", ("-y", "server"), {"A": "b"}, path.parent / "sub"),
        HttpServer("github", "https://github.test/mcp", {"X-Key": "c"}),
        HttpServer("gitlab", "https://gitlab.test/mcp"),
        StdioServer("here", "server", cwd=path.parent),
    )
    assert file.warnings == ()


def test_variables_are_put_in_wherever_a_text_is_used(path: Path) -> None:
    file = loaded(
        path,
        {
            "a": {"command": "${PROGRAM}", "args": ["--in=${FOLDER:-/tmp}"], "env": {"TOKEN": "${TOKEN}${EMPTY:-}"}},
            "b": {"url": "https://${HOST:-b.test}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        },
        PROGRAM="server",
        TOKEN="t0ken\n",
        EMPTY="",
    )

    assert file.servers == (
        StdioServer("a", "server", ("--in=/tmp",), {"TOKEN": "t0ken"}, path.parent),
        HttpServer("b", "https://b.test/mcp", {"Authorization": "Bearer t0ken"}),
    )


@pytest.mark.parametrize("environ", [{}, {"TOKEN": ""}, {"TOKEN": " "}])
def test_a_variable_that_is_not_set_is_named(path: Path, environ: dict[str, str]) -> None:
    servers = {"a": {"command": "x", "env": {"KEY": "${TOKEN}"}}, "b": {"command": "${B}"}}

    assert complaint(path, servers, **environ).splitlines() == [
        "mcpServers.a.env.KEY: TOKEN is not set; set it, or write ${TOKEN:-default}",
        "mcpServers.b.command: B is not set; set it, or write ${B:-default}",
    ]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"type": "sse", "url": "https://x"}, "mcpServers.a: the transport sse is not supported: MCP has replaced it;"),
        ({}, "mcpServers.a: has neither a command nor a url; add one"),
        ({"command": "x", "url": "y"}, "mcpServers.a: has both a command and a url; remove one"),
        ({"type": "htpt", "url": "https://x"}, "mcpServers.a.type: must be 'http' or 'streamable-http'; did you mean"),
        ({"url": "canary"}, "mcpServers.a.url: is not an address that begins with https:// or http://"),
        ({"url": "https://x", "headers": {"X": "canary\u00e9"}}, "mcpServers.a.headers: the value of X holds a char"),
        ({"url": "https://x", "headers": {"": "canary"}}, "mcpServers.a.headers: holds a name that no header can have"),
        ({"command": ""}, "mcpServers.a.command: is empty"),
        ({"command": "x", "args": "canary"}, "mcpServers.a.args: must be a list"),
        ({"command": "x", "env": {"A": 1}}, "mcpServers.a.env.A: must be text; put it in quotes"),
        ({"command": "${input:canary}"}, "mcpServers.a.command: holds a ${ that does not name a variable; write ${NAM"),
        ("canary", "mcpServers.a: must be a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_the_mend(path: Path, server: Any, said: str) -> None:
    assert complaint(path, {"a": server}).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "mcpServers: is missing; add it"),
        ("[]", "must be a mapping"),
        ('{"mcpServers": []}', "mcpServers: must be a mapping"),
        ('{\n"mcpServers": {},\n}', ":3: not JSON: Expecting property name enclosed in double quotes; look at the com"),
        ('{"a": {"b": 1, "b": "canary"}}', "says the key 'b' twice; remove one"),
        ('{"a": ' + "9" * 5_000 + "}", "is nested too deeply, or holds a malformed number"),
        ("[" * 100_000, "is nested too deeply, or holds a malformed number"),
    ],
)
def test_a_file_that_is_none_is_told(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_mcp(path, {})

    assert str(raised.value).removeprefix(f"{path}").removeprefix(": ").startswith(said)
    assert "canary" not in str(raised.value)


def test_keys_of_other_clients_are_warned_of_and_their_variables_are_not_ours(path: Path) -> None:
    path.write_text(
        json.dumps(
            {
                "inputs": [{"id": "${input:x}"}],
                "mcpServers": {"a": {"command": "x", "arg": [], "disabled": True, "note": "${UNSET}"}},
            }
        )
    )

    assert load_mcp(path, {}).warnings == (
        f"{path}: inputs: is not used here",
        f"{path}: mcpServers.a.arg: is not used here; did you mean 'args'?",
        f"{path}: mcpServers.a.disabled: is not used here",
        f"{path}: mcpServers.a.note: is not used here",
    )


def test_servers_whose_tools_would_share_their_names_are_refused(path: Path) -> None:
    said = complaint(path, {"my-shop": {"command": "x"}, "my.shop": {"command": "y"}})

    assert said == (
        "mcpServers.my.shop: its tools would be called mcp__my_shop__…, as those of 'my-shop'; rename one of the two"
    )


def test_no_repr_shows_a_secret(path: Path) -> None:
    file = loaded(
        path,
        {
            "a": {"command": "x", "args": ["${CANARY}"], "env": {"A": "${CANARY}"}},
            "b": {"url": "https://user:${CANARY}@b.test", "headers": {"B": "${CANARY}"}},
        },
        CANARY="canary",
    )

    assert "canary" not in repr(file)


# agents.yaml


@pytest.mark.parametrize(
    ("mcp", "files", "found"),
    [
        ("", [], None),
        ("", [".mcp.json"], ".mcp.json"),
        ("mcp: tools/mcp.json", [".mcp.json", "tools/mcp.json"], "tools/mcp.json"),
    ],
)
def test_the_file_is_the_one_that_is_named_or_lies_beside(
    tmp_path: Path, mcp: str, files: list[str], found: str | None
) -> None:
    (tmp_path / "tools").mkdir()
    for name in files:
        (tmp_path / name).write_text("{}")
    agents = tmp_path / "agents.yaml"
    agents.write_text(AGENTS.format(mcp=mcp))

    assert agents_yaml.load_agents(agents).mcp_path == (None if found is None else tmp_path / found)


def test_a_file_that_is_named_and_not_there_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text("{}")
    agents = tmp_path / "agents.yaml"
    agents.write_text(AGENTS.format(mcp="mcp: mpc.json"))
    with pytest.raises(ConfigurationError) as raised:
        agents_yaml.load_agents(agents)

    assert str(raised.value) == f"{agents}:3: mcp: there is no file {tmp_path}/mpc.json; did you mean 'mcp.json'?"


def test_rules_for_tools_that_are_not_known_yet_are_not_called_idle(tmp_path: Path) -> None:
    agents = tmp_path / "agents.yaml"
    agents.write_text(AGENTS.format(mcp=""))
    warned = agents_yaml.warnings(agents_yaml.load_agents(agents), {}, ["mcp__shop__"])

    assert [line.partition("tools.")[2].partition(":")[0] for line in warned] == ["mcp__shpo__*"]
