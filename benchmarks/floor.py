"""The floor: what the same message costs where nothing is durable.

One asyncio process makes the same Router calls with the same models, prompts and tools, runs the same tool, and writes
the same rows into the same tables of a database of its own: the message in one transaction before, all the rest in one
transaction after. There is no workflow, no row-level security, no ledger to ask, no API and nobody who is woken; what
is in flight when the process dies is lost.

`python -m benchmarks.floor URL` is that process: it reads a load as a line of JSON and answers with its latencies.
`Floor` is the benchmark's end of it.
"""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, make_url, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks import tools
from benchmarks.load import KINDS, TEXT, Kind, Result, WrongResult
from benchmarks.processes import AGENTS
from holdfast.config.agents_yaml import load_agents
from holdfast.config.models_yaml import load_models
from holdfast.domain.agents import AgentSpec
from holdfast.domain.ids import new_conversation_id, new_message_id, new_run_id, new_tool_call_id
from holdfast.domain.messages import PastRun, PastStep, RequestedToolCall, ToolExchange, as_chat
from holdfast.domain.model_calls import Completion
from holdfast.llm import prompt
from holdfast.llm.pool import ModelPool
from holdfast.store.tables import record, runs, schema, tenants
from holdfast.tools.functions import tools_of_modules
from holdfast.tools.registry import ToolRegistry

_DATABASE = "floor"
_TENANT = "floor"

#: As many connections as the worker and the API have each.
_POOL_SIZE = 10


class Floor:
    """The floor's process, from outside."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send_all(self, kind: Kind, messages: int, in_flight: int) -> Result:
        """Handle so many messages of a kind, `in_flight` at a time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        load = {"agent": kind.agent, "messages": messages, "in_flight": in_flight}
        self._process.stdin.write(json.dumps(load).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise WrongResult("the floor's process ended")
        return Result(**json.loads(answer))


@asynccontextmanager
async def running(database_url: str) -> AsyncIterator[Floor]:
    """The floor's process runs while the block does, with a new database beside the system's."""
    command = [sys.executable, "-m", "benchmarks.floor", await _make_database(database_url)]
    # A line holds the latencies of a whole load.
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=2**24)
    try:
        yield Floor(process)
    finally:
        process.terminate()
        await process.wait()


async def _make_database(database_url: str) -> str:
    engine = create_async_engine(database_url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {_DATABASE}"))
    await engine.dispose()
    url = make_url(database_url).set(database=_DATABASE)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(schema.metadata.create_all)
        await connection.execute(insert(tenants.tenants).values(tenant_id=_TENANT))
    await engine.dispose()
    return url.render_as_string(hide_password=False)


class PlainAgent:
    """Handles messages as a program without durability would."""

    def __init__(
        self, engine: AsyncEngine, pool: ModelPool, agents: dict[str, AgentSpec], offered: ToolRegistry
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._agents = agents
        self._offered = offered

    async def handle(self, kind: Kind) -> None:
        """One message, from its acceptance to its stored reply."""
        agent = self._agents[kind.agent]
        ids = {"tenant_id": _TENANT, "run_id": new_run_id(), "conversation_id": new_conversation_id()}
        await self._accept(ids, agent)
        completions: list[Completion] = []
        steps: list[PastStep] = []
        while not completions or completions[-1].tool_calls:
            transcript = [PastRun(user_text=TEXT, steps=tuple(steps), reply=None)]
            functions = [tool.as_function for tool in self._offered.matching(rule.pattern for rule in agent.tools)]
            chat = as_chat(prompt.assemble(agent), transcript)
            completions.append(await self._pool.complete(agent.model, chat, functions))
            steps.append(await _run_tools(completions[-1]))
        if len(completions) != kind.model_calls:
            raise WrongResult(f"the floor made {len(completions)} model calls")
        await self._store(ids, completions, steps)

    async def _accept(self, ids: dict[str, str], agent: AgentSpec) -> None:
        message_id = new_message_id()
        conversation = {"tenant_id": _TENANT, "conversation_id": ids["conversation_id"], "last_position": 1}
        run = {"agent": agent.name, "agent_version": 1, "position": 1, "requested_by": "dev", "status": "running"}
        message = {"message_id": message_id, "role": "user", "text": TEXT, "idempotency_key": message_id}
        async with self._engine.begin() as connection:
            await connection.execute(insert(runs.conversations), conversation)
            await connection.execute(insert(runs.runs), {**ids, "message_id": message_id, **run})
            await connection.execute(insert(runs.messages), {**ids, **message})

    async def _store(self, ids: dict[str, str], completions: list[Completion], steps: list[PastStep]) -> None:
        of_run = {"tenant_id": _TENANT, "run_id": ids["run_id"]}
        numbered = list(enumerate(zip(completions, steps, strict=True), start=1))
        model_calls = [{**of_run, "step": step, **_model_call(completion)} for step, (completion, _) in numbered]
        calls = [
            {**of_run, "step": step, "position": position, **_tool_call(exchange)}
            for step, (_, past) in numbered
            for position, exchange in enumerate(past.exchanges)
        ]
        entries = [{"kind": "model_call", "outcome": "answered", "tool": None, **call} for call in model_calls]
        entries += [
            {**dict.fromkeys(entries[0]), **of_run, "kind": "tool_call", "outcome": "succeeded", "tool": call["tool"]}
            for call in calls
        ]
        done = {"status": "completed", "completed_at": datetime.now(UTC)}
        reply = {"message_id": new_message_id(), "role": "assistant", "text": completions[-1].text}
        async with self._engine.begin() as connection:
            texts = [{**call, "text": of.text} for call, of in zip(model_calls, completions, strict=True)]
            await connection.execute(insert(runs.steps), texts)
            if calls:
                await connection.execute(insert(runs.tool_calls), calls)
            await connection.execute(insert(record.audit), entries)
            await connection.execute(insert(runs.messages), {**ids, **reply})
            await connection.execute(update(runs.runs).where(runs.runs.c.run_id == ids["run_id"]).values(done))


async def _run_tools(completion: Completion) -> PastStep:
    exchanges = [
        ToolExchange(new_tool_call_id(), call, json.dumps(await tools.lookup(**json.loads(call.arguments))))
        for call in completion.tool_calls
    ]
    return PastStep(completion.text, tuple(exchanges))


def _model_call(completion: Completion) -> dict[str, Any]:
    of_usage = {name: getattr(completion.usage, name) for name in ("prompt_tokens", "completion_tokens", "cost_usd")}
    return {name: getattr(completion, name) for name in ("alias", "model", "deployment", "latency_ms")} | of_usage


def _tool_call(exchange: ToolExchange) -> dict[str, Any]:
    call: RequestedToolCall = exchange.call
    return {
        "tool_call_id": exchange.tool_call_id,
        "tool": call.tool,
        "arguments_raw": call.arguments,
        "arguments": json.loads(call.arguments),
        "status": "succeeded",
        "effect": "read",
        "idempotency": "none",
        "rule": "allow",
        "attempts": 1,
        "result": exchange.result,
    }


async def _serve(database_url: str) -> None:
    file = load_agents(AGENTS)
    models = load_models(file.models_path, os.environ, allow_demo=False)
    engine = create_async_engine(database_url, pool_size=_POOL_SIZE, max_overflow=0, pool_timeout=60)
    agent = PlainAgent(
        engine,
        ModelPool(models.for_router(), models.router_settings, models.litellm_settings),
        {spec.name: spec for spec in file.agents},
        ToolRegistry(tools_of_modules(file.tool_modules)),
    )
    while line := await asyncio.to_thread(sys.stdin.readline):
        load = json.loads(line)
        kind = next(kind for kind in KINDS if kind.agent == load["agent"])
        result = await _handle_all(agent, kind, load["messages"], load["in_flight"])
        print(json.dumps(vars(result)), flush=True)
    await engine.dispose()


async def _handle_all(agent: PlainAgent, kind: Kind, messages: int, in_flight: int) -> Result:
    latencies: list[float] = []
    waiting = iter(range(messages))

    async def handle_each() -> None:
        for _ in waiting:
            began = time.perf_counter()
            await agent.handle(kind)
            latencies.append((time.perf_counter() - began) * 1000)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as handlers:
        for _ in range(in_flight):
            handlers.create_task(handle_each())
    return Result(latencies, time.perf_counter() - started)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
