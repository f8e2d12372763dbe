"""The desk where people approve: it parks runs that wait for a confirmation, approves them, and knows when tools start.

An approval is one HTTP request, as a person sends it. What waits is read from PostgreSQL, and the start of a tool from
the file in which the tool itself notes it; so neither costs the system a request.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.load import REFUND, TEXT, Client, Connection, WrongResult
from benchmarks.processes import System

#: How many people write messages and decide at a time, each with a connection of their own.
PEOPLE = 10

_PATIENCE_S = 600
_POLL_S = 0.02

_PENDING = text("SELECT count(*) FROM confirmations WHERE status = 'pending'")
_OLDEST = text(
    "SELECT confirmation_id, arguments_digest, tool_call_id FROM confirmations WHERE status = 'pending'"
    " ORDER BY confirmation_id LIMIT :limit"
)
_COMPLETED = text("SELECT count(*) FROM runs WHERE agent = 'refund' AND status = 'completed'")


@dataclass(frozen=True)
class Asked:
    """A pending confirmation, as whoever decides it needs it."""

    confirmation_id: str
    arguments_digest: str
    tool_call_id: str


class Desk:
    """Parks and approves. `client` is told what was answered, and checks at the end what is stored."""

    def __init__(self, system: System, client: Client, engine: AsyncEngine, starts: Path) -> None:
        self._system = system
        self._client = client
        self._engine = engine
        self._starts = starts

    async def park(self, runs: int) -> None:
        """Send messages until so many more runs wait for a person."""
        expected = await self._count(_PENDING) + runs
        waiting = iter(range(runs))
        async with asyncio.TaskGroup() as writers:
            for _ in range(min(PEOPLE, runs)):
                writers.create_task(self._write_each(waiting))
        await self._until(_PENDING, expected)

    async def oldest(self, limit: int) -> list[Asked]:
        """The confirmations that have been pending for longest."""
        async with self._engine.connect() as connection:
            return [Asked(*row) for row in await connection.execute(_OLDEST, {"limit": limit})]

    async def approve(self, asked: Sequence[Asked], people: int = 1) -> dict[str, float]:
        """Approve them, `people` at a time; answers with the moment of each HTTP answer, by tool call."""
        answered: dict[str, float] = {}
        waiting = iter(asked)
        async with asyncio.TaskGroup() as deciders:
            for _ in range(people):
                deciders.create_task(self._approve_each(waiting, answered))
        return answered

    async def started(self, tool_calls: Sequence[str]) -> list[float]:
        """The moments when these tools started, once all of them have."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            lines = [line.split() for line in self._starts.read_text().splitlines()] if self._starts.exists() else []
            found = {tool_call_id: float(moment) for moment, tool_call_id in lines}
            if found.keys() >= set(tool_calls):
                return [found[tool_call_id] for tool_call_id in tool_calls]
            await asyncio.sleep(_POLL_S)
        raise WrongResult(f"not every tool that was approved had started after {_PATIENCE_S} s")

    async def until_all_completed(self) -> None:
        """Wait until every run that was approved has ended with its reply."""
        await self._until(_COMPLETED, self._client.answered[REFUND])

    async def _write_each(self, waiting: Iterator[int]) -> None:
        connection = Connection(self._system)
        body = json.dumps({"agent": REFUND.agent, "text": TEXT}).encode()
        for _ in waiting:
            status, answer = await connection.post("/v1/messages", body, str(uuid4()))
            if status != 202:
                raise WrongResult(f"HTTP {status}: {answer}")
        connection.close()

    async def _approve_each(self, waiting: Iterator[Asked], answered: dict[str, float]) -> None:
        connection = Connection(self._system)
        for asked in waiting:
            body = json.dumps({"decision": "approve", "arguments_digest": asked.arguments_digest}).encode()
            status, answer = await connection.post(
                f"/v1/confirmations/{asked.confirmation_id}/decision", body, str(uuid4())
            )
            answered[asked.tool_call_id] = time.time()
            if status != 200:
                raise WrongResult(f"HTTP {status}: {answer}")
            self._client.answered[REFUND] += 1
        connection.close()

    async def _count(self, query: TextClause) -> int:
        async with self._engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def _until(self, query: TextClause, expected: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (found := await self._count(query)) != expected:
            if found > expected or time.monotonic() > deadline:
                raise WrongResult(f"{found} runs instead of {expected}: {query}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def opened(system: System, client: Client, starts: Path) -> AsyncIterator[Desk]:
    """A desk while the block runs."""
    engine = create_async_engine(system.database_url)
    try:
        yield Desk(system, client, engine, starts)
    finally:
        await engine.dispose()
