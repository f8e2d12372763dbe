"""What it takes to read along: how late words come, with more and more streams at once, and what a stream costs.

The provider says what time it is (`benchmarks.pacing`), so each word that arrives tells how long it took from the
provider to the reader: through LiteLLM, the worker's gathering, PostgreSQL, NOTIFY, and the API. Each stream is a
message that is answered with its own run's events; in the end its text must be the stored one. Streams of one load
begin one after the other, over half of the time that a text takes.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks import notify, processes
from benchmarks.load import WrongResult, percentile
from benchmarks.notify import Notified
from benchmarks.pacing import asking
from benchmarks.processes import Meter, System, Usage, resident_mb

_WORDS = 20

#: More than any load has, and no tenant's cap below it: what is measured is reading, not waiting for a slot.
_SLOTS = {"HOLDFAST_WORKER_MAX_ACTIVITIES": "700", "HOLDFAST_TENANT_MAX_MODEL_CALLS": "600"}

#: How long opening a stream, or its next event, may take, in seconds.
_PATIENCE_S = 120


@dataclass(frozen=True)
class Plan:
    """How many streams at once, and how far apart their words are; how many idle ones; how many connections notify."""

    apart_ms: dict[int, int]
    rounds: dict[int, int]
    idle: int
    writers: list[int]


FULL = Plan({1: 50, 100: 500, 500: 2500}, {1: 10, 100: 2, 500: 1}, idle=500, writers=[1, 8, 32, 128])
QUICK = Plan({1: 50, 20: 200}, {1: 2, 20: 1}, idle=50, writers=[8])


@dataclass
class Stream:
    """What came of one message: when its first word came after it was sent, and how old words were when they came."""

    first_ms: float = 0.0
    late_ms: list[float] = field(default_factory=list)
    run_id: str = ""
    text: str = ""


@dataclass(frozen=True)
class Load:
    """So many streams at once."""

    streams: int
    apart_ms: int
    read: list[Stream]
    api_mb: float
    usage: Usage
    load_average: float

    @property
    def first_ms(self) -> list[float]:
        return [stream.first_ms for stream in self.read]

    @property
    def late_ms(self) -> list[float]:
        return [late for stream in self.read for late in stream.late_ms]


@dataclass(frozen=True)
class Report:
    """Everything that was measured. `idle_kb`: what the API takes for one of the streams in which nothing happens."""

    loads: list[Load]
    idle: int
    idle_kb: float
    active_kb: float
    notified: list[Notified]


async def measure(folder: Path, plan: Plan) -> Report:
    """Start everything, measure it, and stop it.

    Raises:
        HoldfastError: a part could not start.
        WrongResult: a stream did not end with the text that is stored.
    """
    print("streams: starting", flush=True)
    async with processes.running(folder, settings=_SLOTS, provider_module="benchmarks.pacing") as system:
        await asyncio.gather(*(_read_message(system, 20) for _ in range(10)))
        idle_kb = await _idle(system, plan.idle)
        loads = []
        for streams, apart_ms in plan.apart_ms.items():
            print(f"streams: {streams} at once", flush=True)
            before_mb = resident_mb(system.pids["API"])
            loads.append(await _load(system, streams, apart_ms, plan.rounds[streams]))
        active_kb = max(0.0, loads[-1].api_mb - before_mb) * 1024 / loads[-1].streams
        print("streams: NOTIFY", flush=True)
        notified = await notify.measure(folder, system.database_url, plan.writers)
    return Report(loads, plan.idle, idle_kb, active_kb, notified)


async def _load(system: System, streams: int, apart_ms: int, rounds: int) -> Load:
    meter = Meter(system.pids)
    read: list[Stream] = []
    with _watching_memory(system) as memory_mb:
        for _ in range(rounds):
            spread_s = _WORDS * apart_ms / 1000 / 2 / streams
            messages = (_read_message(system, apart_ms, number * spread_s) for number in range(streams))
            read += await asyncio.gather(*messages)
    usage = await meter.stop()
    load_average = os.getloadavg()[0]
    await asyncio.gather(*(_check(system, stream) for stream in read[:50]))
    return Load(streams, apart_ms, read, max(memory_mb), usage, load_average)


@contextmanager
def _watching_memory(system: System) -> Iterator[list[float]]:
    found = [resident_mb(system.pids["API"])]

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.5)
            found.append(resident_mb(system.pids["API"]))

    task = asyncio.create_task(watch())
    with ExitStack() as after:
        after.callback(task.cancel)
        yield found


async def _idle(system: System, streams: int) -> float:
    """What the API takes for each stream of a run in which nothing happens, in kB."""
    body = json.dumps({"agent": "plain", "text": asking(2, 600_000)}).encode()
    async with _asked(system, "POST /v1/messages", body) as events:
        run_id = (await anext(events))[1]["run_id"]
        before_mb = resident_mb(system.pids["API"])
        async with asyncio.TaskGroup() as opened:
            readers = [opened.create_task(_open(system, run_id)) for _ in range(streams)]
        after_mb = resident_mb(system.pids["API"])
        for reader in readers:
            reader.result().close()
    return (after_mb - before_mb) * 1024 / streams


async def _open(system: System, run_id: str) -> asyncio.StreamWriter:
    """A stream that has told all that there is to tell, and waits."""
    reader, writer = await _request(system, f"GET /v1/runs/{run_id}/events", b"")
    async with asyncio.timeout(_PATIENCE_S):
        await reader.readuntil(b"message.delta")
    return writer


async def _read_message(system: System, apart_ms: int, after_s: float = 0) -> Stream:
    """Send a message and read along to its end. Not all begin in the same moment: reading is what is measured."""
    await asyncio.sleep(after_s)
    stream = Stream()
    body = json.dumps({"agent": "plain", "text": asking(_WORDS, apart_ms)}).encode()
    sent = time.time()
    async with _asked(system, "POST /v1/messages", body) as events:
        async for kind, data in events:
            if kind == "run.queued":
                stream.run_id = data["run_id"]
            elif kind == "message.delta":
                came = time.time()
                stream.first_ms = stream.first_ms or (came - sent) * 1000
                stream.late_ms += [(came - int(word) / 1e6) * 1000 for word in data["text"].split()]
            elif kind == "message.completed":
                stream.text = data["text"]
    if len(stream.text.split()) != _WORDS:
        raise WrongResult(f"a stream ended with {stream.text!r}")
    return stream


async def _check(system: System, stream: Stream) -> None:
    reader, writer = await _request(system, f"GET /v1/runs/{stream.run_id}", b"")
    answer = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    writer.close()
    if answer["reply"] != stream.text:
        raise WrongResult(f"read: {stream.text!r}; stored: {answer['reply']!r}")


@asynccontextmanager
async def _asked(system: System, what: str, body: bytes) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, str]]]]:
    reader, writer = await _request(system, what, body)
    try:
        yield _events(reader)
    finally:
        writer.close()


async def _request(system: System, what: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(system.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
    accept = "text/event-stream" if "events" in what or body else "*/*"
    head = (
        f"{what} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {system.key}\r\naccept: {accept}\r\n"
        f"content-type: application/json\r\nidempotency-key: {uuid4()}\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return reader, writer


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Type and data of each event, out of the chunks of a body; the API writes each event into a chunk of its own."""
    async with asyncio.timeout(_PATIENCE_S):
        status = await reader.readuntil(b"\r\n")
        if b" 200 " not in status:
            raise WrongResult(f"{status.decode().strip()}: {(await reader.read()).decode()}")
    kind = ""
    while True:
        async with asyncio.timeout(_PATIENCE_S):
            line = await reader.readline()
        if line.startswith(b"event: "):
            kind = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line[6:])
            if kind.startswith("run.") and kind not in ("run.queued", "run.started"):
                return
        elif not line:
            raise WrongResult("a stream ended in the middle")


def rows(report: Report) -> Iterator[list[str]]:
    """A row of the table for each load."""
    for load in report.loads:
        late, first = load.late_ms, load.first_ms
        cpu = [f"{load.usage.seconds_by_part[part]:.1f}" for part in ("worker", "API", "PostgreSQL")]
        yield [
            str(load.streams),
            str(load.apart_ms),
            *(f"{percentile(first, percent):.0f}" for percent in (50, 95)),
            *(f"{percentile(late, percent):.0f}" for percent in (50, 95)),
            f"{load.api_mb:.0f}",
            *cpu,
            f"{load.usage.others:.0%}",
            f"{load.load_average:.1f}",
        ]
