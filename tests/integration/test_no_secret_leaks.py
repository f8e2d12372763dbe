"""API and worker as processes, given canaries for secrets, through errors of many kinds: no canary comes out anywhere.

Searched are the logs, every answer of the API, and every row of the database.
"""

import json
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from holdfast.config import agents_yaml
from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.process import Child
from holdfast.domain.permissions import Role
from holdfast.secrecy.keyring import new_key
from holdfast.services.agents import Agents
from holdfast.services.keys import Keys
from holdfast.store.engine import Database, create_engine
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Garbage, HttpError, ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.servers import APP_ROLE, Servers

ROOT = Path(__file__).parents[2]

AGENTS = """
version: 1
models: models.yaml
tools: [leaky_tools]
mcp: mcp.json
agents:
  support:
    model: quality
    identity: {name: Mira, role: Support agent}
    persona: Warm, brief, exact.
    system_prompt: You help.
    limits: {patience: 1s}
    tools: {"*": allow}
"""

MODELS = """
model_list:
  - model_name: quality
    litellm_params:
      model: openai/leaky
      api_base: os.environ/LEAKY_BASE
      api_key: os.environ/LEAKY_PROVIDER_CREDENTIAL
      extra_headers: {x-second-token: os.environ/LEAKY_SECOND}
    model_info: {provider: leaky}
"""

MCP = {
    "mcpServers": {
        "talkative": {
            "command": sys.executable,
            "args": ["-c", "import os, sys; print(dict(os.environ), sys.argv, file=sys.stderr)"],
            "env": {"GIVEN": "${LEAKY_MCP_TOKEN}", "SOME_API_KEY": "${LEAKY_MCP_KEY}"},
        },
        "away": {
            "type": "http",
            "url": "http://127.0.0.1:9/mcp",
            "headers": {"Authorization": "Bearer ${LEAKY_BEARER}"},
        },
    }
}

TOOLS = '''
"""Tools that say what they should not."""
import logging, os
from holdfast.domain.tools import tool

ALL = ("LEAKY_PROVIDER_CREDENTIAL", "LEAKY_MCP_TOKEN", "HOLDFAST_DATABASE_URL", "HOLDFAST_PAYLOAD_KEYS", "LEAKY_BEARER")

def secrets():
    return " ".join(os.environ[name] for name in ALL)

def raise_them(marker: str) -> str:
    """Raise."""
    logging.getLogger("leaky").error("about to fail with %s", secrets())
    raise RuntimeError(f"401 for {marker} with {secrets()}")

@tool(effect="read")
def return_them(marker: str) -> dict[str, str]:
    """Return."""
    print(secrets().replace(os.environ["LEAKY_BEARER"], "") and "a tool printed")
    return {"all": secrets(), "found": marker}
'''


@dataclass
class Canaries:
    """A secret for each place in which a process is given one."""

    provider: str
    second: str
    mcp_token: str
    mcp_key: str
    bearer: str
    database_password: str
    pepper: str
    payload_key: str
    own_key: str

    @classmethod
    def new(cls) -> "Canaries":
        made = {name: f"canary{uuid.uuid4().hex}" for name in cls.__annotations__}
        return cls(**{**made, "payload_key": new_key("canary").partition(":")[2], "own_key": f"sk-{made['own_key']}"})


@dataclass
class Processes:
    """What runs, what it is called by, and where it writes."""

    ada: Caller
    folder: Path
    answers: list[str]
    environment: dict[str, str]


@asynccontextmanager
async def running(
    servers: Servers, provider: ScriptedProvider, folder: Path, canaries: Canaries
) -> AsyncIterator[Processes]:
    name = f"leaks-{uuid.uuid4().hex[:12]}"
    await servers.create_database(name)
    database_url = servers.database_url(name, APP_ROLE)
    environment = _environment(servers, provider, folder, canaries, name)
    for file, content in (
        ("agents.yaml", AGENTS),
        ("models.yaml", MODELS),
        ("mcp.json", json.dumps(MCP)),
        ("leaky_tools.py", TOOLS),
    ):
        (folder / file).write_text(content)
    database = Database(create_engine(database_url, pool_size=2))
    tenant = new_tenant()
    key = (await Keys(database, canaries.pepper).create(tenant, "ada", list(Role))).secret
    sys.path.insert(0, str(folder))
    try:
        for spec in agents_yaml.load_agents(folder / "agents.yaml").agents:
            await Agents(database).apply(tenant, spec)
    finally:
        sys.path.remove(str(folder))
        await database.close()
    ports = {module: free_port() for module in ("api", "worker")}
    environment |= {"HOLDFAST_API_PORT": str(ports["api"]), "HOLDFAST_WORKER_HEALTH_PORT": str(ports["worker"])}
    children = [_child(module, folder, environment) for module in ports]
    ada = Caller(f"http://127.0.0.1:{ports['api']}", key, tenant, "ada")
    answers: list[str] = []

    async def keep(response: httpx.Response) -> None:
        await response.aread()
        answers.append(f"{response.headers} {response.text}")

    ada.http.event_hooks["response"].append(keep)
    try:
        for child, port in zip(children, ports.values(), strict=True):
            await child.wait_until(lambda port=port: is_listening(port), 90)  # type: ignore[misc]
        yield Processes(ada, folder, answers, environment)
    finally:
        await ada.http.aclose()
        for child in children:
            child.stop(10)


def _environment(
    servers: Servers, provider: ScriptedProvider, folder: Path, canaries: Canaries, name: str
) -> dict[str, str]:
    # The servers of the tests trust whoever comes: a password is sent along, and not looked at.
    url = make_url(servers.database_url(name, APP_ROLE)).set(password=canaries.database_password)
    return {
        "HOLDFAST_ENVIRONMENT": "production",
        "HOLDFAST_LOG_LEVEL": "DEBUG",
        "HOLDFAST_DATABASE_URL": url.render_as_string(hide_password=False),
        "HOLDFAST_KEY_PEPPER": canaries.pepper,
        "HOLDFAST_PAYLOAD_KEYS": f"canary:{canaries.payload_key}",
        "HOLDFAST_AGENTS": str(folder / "agents.yaml"),
        "HOLDFAST_MODELS": str(folder / "models.yaml"),
        "HOLDFAST_TASK_QUEUE": name,
        "HOLDFAST_WORKER_DRAIN_S": "0",
        "LEAKY_BASE": provider.url,
        "LEAKY_PROVIDER_CREDENTIAL": canaries.provider,
        "LEAKY_SECOND": canaries.second,
        "LEAKY_MCP_TOKEN": canaries.mcp_token,
        "LEAKY_MCP_KEY": canaries.mcp_key,
        "LEAKY_BEARER": canaries.bearer,
        "TEMPORAL_ADDRESS": servers.temporal_address,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }


def _child(module: str, folder: Path, environment: dict[str, str]) -> Child:
    return Child(module, [sys.executable, "-m", module], log=folder / f"{module}.log", env=environment, cwd=ROOT)


async def provoke(here: Processes, provider: ScriptedProvider, canaries: Canaries) -> None:
    """Errors of many kinds, of which each would like to say a secret."""
    ada, echoed = here.ada, f"Incorrect API key provided: {canaries.provider}; {canaries.second}; {canaries.own_key}"
    # A worker's first call takes longer than others, perhaps longer than this agent's patience.
    await ada.ended(await ada.start("hello"))
    provider.script(ToolCalls([("raise_them", {"marker": "m"}), ("return_them", {"marker": "m"})]))
    run = await ada.ended(await ada.start("use the tools"))
    assert [call["status"] for call in run["tool_calls"]] == ["failed", "succeeded"]
    assert "401 for m with" in run["tool_calls"][0]["error"]
    question = {"alias": "quality", "messages": [{"role": "user", "content": "a"}]}
    for status in (400, 401, 429, 500):
        provider.script(*[HttpError(status, echoed)] * 2)
        await ada.http.post("/complete", json=question)
        await ada.ended(await ada.start(f"the provider answers {status}"))
    provider.script(Garbage(echoed.encode()))
    await ada.http.post("/complete/stream", json=question)
    await ada.http.put("/v1/provider-keys/leaky", json={"key": canaries.own_key})
    await ada.get("/v1/provider-keys")
    provider.script(HttpError(401, echoed), HttpError(401, echoed))
    await ada.http.post("/complete", json=question)
    await ada.ended(await ada.start("with a key of its own"))
    await bad_requests(ada, canaries)


async def bad_requests(ada: Caller, canaries: Canaries) -> None:
    secret = canaries.own_key
    wrong = {"authorization": f"Bearer {canaries.provider}"}
    bodies: list[Any] = [{"text": 1}, {"agent": secret, "text": "a"}, {"key": secret, "more": secret}, [secret], secret]
    for body in bodies:
        await ada.http.post("/v1/messages", json=body, headers=wrong)
        await ada.http.put("/v1/provider-keys/leaky", json=body)
        await ada.http.post("/v1/messages", json=body)
    for path in ("/readyz", "/openapi.json", "/v1/agents", "/v1/runs", "/v1/confirmations", "/v1/budget", "/docs"):
        await ada.http.get(path)
    await ada.http.get(f"/v1/runs/{canaries.provider}")
    await ada.http.post("/codec/decode", json={"payloads": [{"data": "YQ=="}]})
    await ada.http.post("/codec/sign-in", data={"key": secret})


async def starts_that_fail(here: Processes) -> None:
    """Processes that don't come up, and say why."""
    url = make_url(here.environment["HOLDFAST_DATABASE_URL"])
    away = url.set(host="127.0.0.1", port=9, query={}).render_as_string(hide_password=False)
    superuser = url.set(username="postgres").render_as_string(hide_password=False)
    for number, change in enumerate(
        [
            {"HOLDFAST_DATABASE_URL": away},
            {"HOLDFAST_DATABASE_URL": superuser},
            {"HOLDFAST_DATABASE_URL": away.replace("postgresql", "mysql")},
            {"HOLDFAST_PAYLOAD_KEYS": here.environment["HOLDFAST_PAYLOAD_KEYS"].replace(":", "=")},
            {"HOLDFAST_PAYLOAD_KEYS": here.environment["HOLDFAST_PAYLOAD_KEYS"][:-5]},
        ]
    ):
        folder = here.folder / f"start-{number}"
        folder.mkdir()
        child = _child("worker", folder, {**here.environment, **change})
        await until(lambda child=child: child.exit_code() is not None)  # type: ignore[misc]
        assert child.exit_code() in (1, 2), child.last_words()
        assert "Traceback" not in (folder / "worker.log").read_text()


async def rows_of(database_url: str) -> str:
    """Everything in a database, as text."""
    import asyncpg  # noqa: PLC0415  only here

    connection = await asyncpg.connect(make_url(database_url).set(drivername="postgresql").render_as_string())
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = [await connection.fetch(f'SELECT t::text FROM "{row["tablename"]}" t') for row in tables]
        return "\n".join(row[0] for rows in found for row in rows)
    finally:
        await connection.close()


@pytest.mark.timeout(240)
async def test_no_secret_of_a_process_comes_out_anywhere(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    canaries = Canaries.new()
    async with running(running_servers, provider, tmp_path, canaries) as here:
        log = tmp_path / "worker.log"
        await until(lambda: "talkative says: " in log.read_text())
        await provoke(here, provider, canaries)
        await starts_that_fail(here)
        rows = await rows_of(running_servers.database_url(here.environment["HOLDFAST_TASK_QUEUE"]))
    logs = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.log")}

    assert len(here.answers) > 40
    assert len(logs) == 7
    assert "401 for m with" in rows
    found = {
        f"{what} in {place}"
        for what, canary in vars(canaries).items()
        for place, text in {**logs, "the answers": "\n".join(here.answers), "the database": rows}.items()
        if canary in text or re.search(re.escape(canary[-20:]), text)
    }
    assert found == set()
    assert "about to fail with" in logs["worker.log"]
    assert here.ada.key not in str(logs) + rows + str(here.answers)
