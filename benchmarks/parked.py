"""Parked confirmations: what it takes to wait for people, and how soon a tool starts when one has decided.

Each number of runs is parked in a system of its own, started anew. Before memory is first read, the worker has answered
as many messages without tools as are to be parked, and a few with a confirmation: what its caches and its model pool
keep of any message is not counted as parking. The worker's cache of runs is larger than what is parked; with the
default, 1000, it would forget the oldest and replay them when they are decided.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import desk, processes, slots, tools
from benchmarks.desk import PEOPLE, Asked, Desk
from benchmarks.load import PLAIN, Client, percentile
from benchmarks.processes import REFUND_CALL, Meter, System, WorkerProcess
from benchmarks.slots import Slots

#: How long everything is left alone before memory is read, in seconds.
_SETTLE_S = 10

#: How long a run that waits alone is left alone before it is decided, in seconds.
_REST_S = 0.2

_WARM_UP = 20


@dataclass(frozen=True)
class Plan:
    """How much is measured: what is parked at a time, and how many decisions are timed under which circumstances.

    `kills`: how often the worker is killed among the smallest number parked; `around_a_kill`: how many decisions are
    made while it is dead, and as many when it is ready again.
    """

    parked: tuple[int, ...]
    alone: int
    steady: int
    a_second: float
    kills: int
    around_a_kill: int


FULL = Plan(parked=(500, 2000), alone=50, steady=100, a_second=5, kills=5, around_a_kill=4)
QUICK = Plan(parked=(50, 200), alone=10, steady=20, a_second=5, kills=2, around_a_kill=4)


@dataclass(frozen=True)
class Parked:
    """So many runs that waited, and were approved. `others`: the share of the machine's CPU that others used."""

    runs: int
    parked_s: float
    worker_kb: float
    temporal_kb: float
    slots: Slots
    steady: list[float]
    approved_s: float
    completed_s: float
    others: float


@dataclass
class Report:
    """Everything that was measured. The lists hold milliseconds from a decision's HTTP answer to its tool's start.

    Only for what was decided while the worker was dead, they are from its being ready again.
    """

    plan: Plan
    parked: list[Parked] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    decided_dead: list[float] = field(default_factory=list)
    decided_ready: list[float] = field(default_factory=list)


async def measure(folder: Path, plan: Plan) -> Report:
    """Start a system for each number of parked runs, and measure it.

    Raises:
        HoldfastError: a part could not start.
        WrongResult: a decision was not taken, or a run did not end with one reply and one run of its tool.
    """
    report = Report(plan)
    async with _working(_made(folder, "alone"), plan) as (system, client, people):
        await _warm_up(client, people, plan.parked[0])
        report.alone = await _decide_alone(people, plan.alone)
        await _kill(report, system, people, folder)
        await client.check_counts()
    for runs in plan.parked:
        async with _working(_made(folder, f"{runs}"), plan) as (system, client, people):
            await _warm_up(client, people, runs)
            report.parked.append(await _park(system, people, plan, runs))
            await client.check_counts()
    return report


def _made(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    return made


@asynccontextmanager
async def _working(folder: Path, plan: Plan) -> AsyncIterator[tuple[System, Client, Desk]]:
    print("starting", flush=True)
    starts = folder / "starts"
    settings = {
        "HOLDFAST_WORKER_MAX_CACHED_WORKFLOWS": str(max(plan.parked) + 500),
        tools.STARTS_VARIABLE: str(starts),
    }
    async with processes.running(folder, REFUND_CALL, settings) as system:
        client = Client(system)
        async with desk.opened(system, client, starts) as people:
            yield system, client, people


async def _warm_up(client: Client, people: Desk, messages: int) -> None:
    print("warming up", flush=True)
    await client.send_all([PLAIN] * messages, in_flight=50)
    await people.park(_WARM_UP)
    await _approve_all(people, _WARM_UP)


async def _approve_all(people: Desk, runs: int) -> tuple[float, float]:
    """Approve what is pending; answers with the seconds until the last answer, and until the last run has ended."""
    began = time.perf_counter()
    await people.approve(await people.oldest(runs), PEOPLE)
    approved_s = time.perf_counter() - began
    await people.until_all_completed()
    return approved_s, time.perf_counter() - began


async def _park(system: System, people: Desk, plan: Plan, runs: int) -> Parked:
    print(f"parking {runs}", flush=True)
    await asyncio.sleep(_SETTLE_S)
    before = _resident_kb(system)
    meter = Meter(system.pids)
    began = time.perf_counter()
    await people.park(runs)
    parked_s = time.perf_counter() - began
    await asyncio.sleep(_SETTLE_S)
    worker_kb, temporal_kb = ((now - then) / runs for now, then in zip(_resident_kb(system), before, strict=True))
    print(f"parked {runs} in {parked_s:.1f} s; waiting for the worker's heartbeat", flush=True)
    async with slots.reading(system.temporal_address) as heartbeats:
        held = await heartbeats.next_of(system.pids["worker"])
    steady = await _decide_steadily(people, plan)
    await people.park(plan.steady)
    await asyncio.sleep(_SETTLE_S)
    approved_s, completed_s = await _approve_all(people, runs)
    print(f"approved {runs} in {approved_s:.1f} s; all completed after {completed_s:.1f} s", flush=True)
    others = (await meter.stop()).others
    return Parked(runs, parked_s, worker_kb, temporal_kb, held, steady, approved_s, completed_s, others)


def _resident_kb(system: System) -> tuple[float, float]:
    """Of the worker and of Temporal."""
    worker, temporal = (processes.resident_mb(system.pids[part]) * 1024 for part in ("worker", "Temporal"))
    return worker, temporal


async def _decide_alone(people: Desk, samples: int) -> list[float]:
    """One run is parked at a time."""
    print(f"{samples} decisions, one run parked at a time", flush=True)
    latencies: list[float] = []
    for _ in range(samples):
        await people.park(1)
        await asyncio.sleep(_REST_S)
        latencies += await _since_answers(people, await people.approve(await people.oldest(1)))
        await people.until_all_completed()
    _say_spread(latencies)
    return latencies


async def _decide_steadily(people: Desk, plan: Plan) -> list[float]:
    """So many decisions a second, whatever has become of those before."""
    print(f"{plan.steady} decisions, {plan.a_second:g} a second", flush=True)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as deciders:
        deciding = []
        for number, asked in enumerate(await people.oldest(plan.steady)):
            await asyncio.sleep(max(0.0, began + number / plan.a_second - time.perf_counter()))
            deciding.append(deciders.create_task(people.approve([asked])))
    answered = {call: moment for one in deciding for call, moment in one.result().items()}
    latencies = await _since_answers(people, answered)
    _say_spread(latencies)
    await people.until_all_completed()
    return latencies


def _say_spread(latencies: list[float]) -> None:
    print(f"tools started after {percentile(latencies, 50):.0f} ms (p50), {percentile(latencies, 95):.0f} ms (p95)")


async def _since_answers(people: Desk, answered: dict[str, float]) -> list[float]:
    starts = await people.started(list(answered))
    return [(start - answer) * 1000 for start, answer in zip(starts, answered.values(), strict=True)]


async def _kill(report: Report, system: System, people: Desk, folder: Path) -> None:
    """Kill the worker again and again; some of what waits is decided while it is dead, some as soon as it is ready."""
    plan = report.plan
    print(f"killing the worker {plan.kills} times, {plan.parked[0]} runs parked", flush=True)
    await people.park(plan.parked[0])
    worker = WorkerProcess(system.pids["worker"], folder / "worker.log")
    try:
        for _ in range(plan.kills):
            await asyncio.sleep(_SETTLE_S)
            worker.kill()
            asked = await people.oldest(plan.around_a_kill * 2)
            await _decide_around(report, worker, people, asked[::2], asked[1::2])
        _say_spread(report.decided_dead)
        _say_spread(report.decided_ready)
        await _approve_all(people, plan.parked[0])
    finally:
        worker.kill()


async def _decide_around(
    report: Report, worker: WorkerProcess, people: Desk, dead: list[Asked], ready: list[Asked]
) -> None:
    await people.approve(dead)
    ready_at = await worker.start()
    answered = await people.approve(ready)
    starts = await people.started([asked.tool_call_id for asked in dead])
    report.decided_dead.extend((start - ready_at) * 1000 for start in starts)
    report.decided_ready.extend(await _since_answers(people, answered))
    await people.until_all_completed()
