"""The sequence of measurements: first the system alone, then, load by load, the system and the floor in turn.

The floor runs in the same minutes on the same machine, since only the ratio of the two holds from one machine to the
next. Before any of it, both have handled messages of each kind.
"""

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import floor, history, processes
from benchmarks.floor import Floor
from benchmarks.history import History
from benchmarks.load import KINDS, PLAIN, Client, Kind, Result
from benchmarks.processes import Meter, System, Usage

#: The messages of one conversation; the history of the last is compared with that of the first.
CONVERSATION = 20

#: At which number in flight CPU is compared.
COMPARED_AT = 50


@dataclass(frozen=True)
class Plan:
    """How much is measured. `messages`: by number in flight; `total`: all that the system handles, for its memory.

    On a slow machine the total is not reached: after `fill_up_s` seconds of sending for its sake it is left at that.
    """

    warm_up: int
    messages: dict[int, int]
    total: int
    fill_up_s: float = 270
    profile: Path | None = None


FULL = Plan(warm_up=100, messages={1: 40, 50: 500, 200: 600}, total=10_000)
QUICK = Plan(warm_up=20, messages={1: 5, 50: 60, 200: 200}, total=200)


@dataclass(frozen=True)
class Measured:
    """One load: what it brought and what it took."""

    kind: Kind
    in_flight: int
    result: Result
    usage: Usage

    @property
    def overhead_ms(self) -> float:
        """The median message's time that was neither the model's nor the tool's."""
        return self.result.percentile(50) - self.kind.waited_ms

    def cpu_ms(self, *parts: str) -> float:
        """CPU a message of these parts together."""
        spent = self.usage.ms_a_message(len(self.result.latencies_ms))
        return sum(spent[part] for part in parts)


@dataclass(frozen=True)
class Memory:
    """Resident memory after so many messages; `is_steady`: under the same load as its neighbours."""

    messages: int
    api_mb: float
    worker_mb: float
    is_steady: bool = False


@dataclass
class Report:
    """Everything that was measured."""

    memory: list[Memory] = field(default_factory=list)
    histories: dict[Kind, tuple[History, History]] = field(default_factory=dict)
    system: dict[tuple[Kind, int], Measured] = field(default_factory=dict)
    floor: dict[tuple[Kind, int], Measured] = field(default_factory=dict)
    messages: int = 0
    sent_again: int = 0


async def measure(folder: Path, plan: Plan) -> Report:
    """Start everything, measure it, and stop it.

    Raises:
        HoldfastError: a part could not start.
        WrongResult: a message was not answered exactly once.
    """
    report = Report()
    print("starting", flush=True)
    async with processes.running(folder) as system, floor.running(system.database_url) as plain:
        client = Client(system)
        await _note_memory(report, client, system)
        await _warm_up(client, plain, plan.warm_up)
        await _read_histories(report, client, system)
        for in_flight, messages in plan.messages.items():
            for kind in KINDS:
                async with _profiled(plan.profile, kind, in_flight, system):
                    await _compare(report, client, system, plain, kind, in_flight, messages)
                await _note_memory(report, client, system)
        await _fill_up(report, client, system, plan)
        await client.check_counts()
        report.messages, report.sent_again = client.answered.total(), client.sent_again
    return report


async def _warm_up(client: Client, plain: Floor, messages: int) -> None:
    print("warming up", flush=True)
    await client.send_all(list(islice(cycle(KINDS), messages)), in_flight=10)
    for kind in KINDS:
        await plain.send_all(kind, messages // 2, in_flight=10)


async def _read_histories(report: Report, client: Client, system: System) -> None:
    print(f"{CONVERSATION} messages of one conversation, without tools and with one", flush=True)
    conversations = await asyncio.gather(*(client.converse(kind, CONVERSATION) for kind in KINDS))
    async with history.reading(system.temporal_address) as histories:
        for kind, runs in zip(KINDS, conversations, strict=True):
            report.histories[kind] = (await histories.of(runs[0]), await histories.of(runs[-1]))


async def _compare(
    report: Report, client: Client, system: System, plain: Floor, kind: Kind, in_flight: int, messages: int
) -> None:
    meter = Meter(system.pids)
    result = await client.send_all([kind] * messages, in_flight)
    report.system[kind, in_flight] = Measured(kind, in_flight, result, await meter.stop())
    meter = Meter({"floor": plain.pid, **{part: system.pids[part] for part in ("PostgreSQL", "provider")}})
    floor_result = await plain.send_all(kind, messages, in_flight)
    report.floor[kind, in_flight] = Measured(kind, in_flight, floor_result, await meter.stop())
    print(
        f"{messages} messages {kind.name}, {in_flight} in flight: {result.a_second:.1f} a second, p50 "
        f"{result.percentile(50):.0f} ms; floor {floor_result.a_second:.1f}, {floor_result.percentile(50):.0f} ms",
        flush=True,
    )


async def _fill_up(report: Report, client: Client, system: System, plan: Plan) -> None:
    deadline = time.monotonic() + plan.fill_up_s
    while (left := plan.total - client.answered.total()) > 0 and time.monotonic() < deadline:
        await client.send_all([PLAIN] * min(left, max(100, plan.total // 20)), COMPARED_AT)
        await _note_memory(report, client, system, is_steady=True)


async def _note_memory(report: Report, client: Client, system: System, *, is_steady: bool = False) -> None:
    now = Memory(
        messages=client.answered.total(),
        api_mb=processes.resident_mb(system.pids["API"]),
        worker_mb=processes.resident_mb(system.pids["worker"]),
        is_steady=is_steady,
    )
    report.memory.append(now)
    print(f"after {now.messages} messages: API {now.api_mb:.0f} MB, worker {now.worker_mb:.0f} MB", flush=True)


@asynccontextmanager
async def _profiled(target: Path | None, kind: Kind, in_flight: int, system: System) -> AsyncIterator[None]:
    """Record flame graphs of worker and API while the block runs, at the number in flight where CPU is compared."""
    recorders: list[Any] = []
    if target is not None and in_flight == COMPARED_AT:
        for part in ("worker", "API"):
            recorders.append(await _record(target / f"{part}-{kind.agent}.svg", system.pids[part]))
    try:
        yield
    finally:
        for recorder in recorders:
            # py-spy writes its file when it is interrupted.
            recorder.send_signal(signal.SIGINT)
            await recorder.wait()


async def _record(file: Path, pid: int) -> Any:
    program = shutil.which("py-spy")
    if program is None:
        raise SystemExit("--profile needs py-spy on the PATH: uv tool install py-spy")
    command = [program, "record", "--nonblocking", "--pid", str(pid), "--output", str(file), "--duration", "3600"]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
