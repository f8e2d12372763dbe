"""The load: messages through the HTTP API, as a client sends them, and a count of what came of them.

A closed loop: so many senders, each with a connection of its own, each sending its next message when the last is
answered. Every message carries an Idempotency-Key and waits for its reply (`?wait=`); one that is not answered by then,
or that the API could not take, is sent again under the same key.

The HTTP client is a few lines on a socket, since this process shares the cores with what it measures, and an HTTP
library costs more CPU a request than the API has to spare.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import tools
from benchmarks.processes import MODEL_LATENCY_MS, System

_WAIT_S = 50

#: How long to rest before sending again what the API could not take, in seconds.
_REST_S = 0.2

TEXT = "Where is my order 1042? I ordered it last week, and it was to arrive on Tuesday."


class WrongResult(Exception):
    """The system answered something else than it should have: not a matter of speed."""


@dataclass(frozen=True)
class Kind:
    """A kind of message: which agent it goes to, and what answering it takes."""

    name: str
    agent: str
    model_calls: int
    tool_calls: int

    @property
    def waited_ms(self) -> float:
        """What a message waits for models and tools; all else is overhead."""
        return self.model_calls * MODEL_LATENCY_MS + self.tool_calls * tools.LATENCY_MS


PLAIN = Kind("without tools", "plain", model_calls=1, tool_calls=0)
LOOKUP = Kind("one tool", "lookup", model_calls=2, tool_calls=1)
REFUND = Kind("one tool that a person confirms", "refund", model_calls=2, tool_calls=1)
KINDS = (PLAIN, LOOKUP)


@dataclass(frozen=True)
class Result:
    """What a load brought: the latency of each message, in order of their replies, and the time they took together."""

    latencies_ms: list[float]
    seconds: float

    @property
    def a_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: int) -> float:
        return percentile(self.latencies_ms, percent)


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent of them don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Client:
    """Sends messages to the API of a system, and remembers how many of each kind were answered."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.answered: Counter[Kind] = Counter()
        self.sent_again = 0

    async def send_all(self, kinds: list[Kind], in_flight: int) -> Result:
        """Send these messages, each in a conversation of its own, `in_flight` at a time."""
        latencies: list[float] = []
        waiting = iter(kinds)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as senders:
            for _ in range(in_flight):
                senders.create_task(self._send_each(waiting, latencies))
        return Result(latencies, time.perf_counter() - started)

    async def converse(self, kind: Kind, messages: int) -> list[dict[str, Any]]:
        """Send messages to one conversation, one after another; answers with their runs."""
        connection = Connection(self._system)
        runs: list[dict[str, Any]] = []
        for _ in range(messages):
            conversation = {"conversation_id": runs[0]["conversation_id"]} if runs else {}
            runs.append(await self._send(connection, kind, conversation))
        connection.close()
        return runs

    async def _send_each(self, waiting: Iterator[Kind], latencies: list[float]) -> None:
        connection = Connection(self._system)
        for kind in waiting:
            sent = time.perf_counter()
            await self._send(connection, kind, {})
            latencies.append((time.perf_counter() - sent) * 1000)
        connection.close()

    async def _send(self, connection: "Connection", kind: Kind, conversation: dict[str, str]) -> dict[str, Any]:
        body = json.dumps({"agent": kind.agent, "text": TEXT, **conversation}).encode()
        key = str(uuid4())
        while True:
            status, run = await connection.post(f"/v1/messages?wait={_WAIT_S}", body, key)
            if status == 200:
                _check(kind, run)
                self.answered[kind] += 1
                return run
            if status not in (202, 503):
                raise WrongResult(f"HTTP {status}: {run}")
            self.sent_again += 1
            await asyncio.sleep(_REST_S)

    async def check_counts(self) -> None:
        """Compare what is stored with what was answered.

        Raises:
            WrongResult: a message has no reply or several, or its model or tool was called more often than it should.
        """
        stored = await _stored(self._system.database_url)
        expected = Stored(
            messages=self.answered.total(),
            runs_completed=self.answered.total(),
            replies=self.answered.total(),
            runs_with_one_reply=self.answered.total(),
            model_calls=sum(kind.model_calls * count for kind, count in self.answered.items()),
            tool_calls=sum(kind.tool_calls * count for kind, count in self.answered.items()),
            tool_dispatches=sum(kind.tool_calls * count for kind, count in self.answered.items()),
        )
        if stored != expected:
            raise WrongResult(f"stored: {stored}; answered: {expected}")


@dataclass(frozen=True)
class Stored:
    """What the database holds of all messages together."""

    messages: int
    runs_completed: int
    replies: int
    runs_with_one_reply: int
    model_calls: int
    tool_calls: int
    tool_dispatches: int


_STORED = text("""
SELECT (SELECT count(*) FROM messages WHERE role = 'user') AS messages,
       (SELECT count(*) FROM runs WHERE status = 'completed' AND NOT degraded) AS runs_completed,
       (SELECT count(*) FROM messages WHERE role = 'assistant') AS replies,
       (SELECT count(*) FROM (SELECT FROM messages WHERE role = 'assistant' GROUP BY tenant_id, run_id
          HAVING count(*) = 1) AS once) AS runs_with_one_reply,
       (SELECT count(*) FROM audit WHERE kind = 'model_call' AND outcome = 'answered') AS model_calls,
       (SELECT count(*) FROM tool_calls WHERE status = 'succeeded') AS tool_calls,
       (SELECT coalesce(sum(attempts), 0)::bigint FROM tool_calls) AS tool_dispatches
""")


async def _stored(database_url: str) -> Stored:
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            return Stored(**(await connection.execute(_STORED)).one()._mapping)
    finally:
        await engine.dispose()


def _check(kind: Kind, run: dict[str, Any]) -> None:
    found = (run["status"], run["degraded"], run["reply"], len(run["steps"]))
    settled = [(call["status"], call["attempts"]) for call in run["tool_calls"]]
    if found != ("completed", False, "Done.", kind.model_calls) or settled != [("succeeded", 1)] * kind.tool_calls:
        raise WrongResult(f"a message {kind.name} ended like this: {run}")


@dataclass
class Connection:
    """One kept-alive HTTP/1.1 connection to an API that answers with `content-length`."""

    system: System
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def post(self, path: str, body: bytes, key: str) -> tuple[int, dict[str, Any]]:
        reader, writer = await self._open()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {self.system.key}\r\n"
            f"content-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status_line, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in headers if line.startswith("content-length:"))
        answer: dict[str, Any] = json.loads(await reader.readexactly(length))
        return int(status_line.split()[1]), answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            address = urlsplit(self.system.url)
            self._streams = await asyncio.open_connection(address.hostname, address.port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
