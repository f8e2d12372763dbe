"""The system under test, started by the code of `holdfast dev` in a folder of its own, and what its processes take.

CPU time is read from the kernel, as user and system time of a part's process, of its living descendants, and of those
that have ended and were waited for. So PostgreSQL's figure holds every backend there was, and none is sampled away.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from benchmarks import tools
from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.postgres import Postgres
from holdfast.dev.process import Child
from holdfast.dev.stack import DevStack, Options
from holdfast.domain.errors import Unavailable

MODEL_LATENCY_MS = 200

AGENTS = Path(__file__).with_name("agents.yaml")

#: What the provider asks for, as its command line takes it.
LOOKUP_CALL = f'{tools.lookup.__name__}={{"key": "1042"}}'
REFUND_CALL = f'{tools.refund.__name__}={{"order_id": 1042}}'

#: Named in models.yaml.
_PROVIDER_VARIABLE = "BENCHMARK_PROVIDER_URL"

_HEALTH_PORT_VARIABLE = "HOLDFAST_WORKER_HEALTH_PORT"
_START_TIMEOUT_S = 90

#: The parts of the system, each with the words of its command line by which it is told from the others.
_PARTS = {"worker": "-m worker", "API": "-m api", "Temporal": "server start-dev", "PostgreSQL": "postgres -D"}

#: How long what follows a reply (closing the run in Temporal, its visibility record) may take before CPU is read.
_SETTLE_S = 1.0

_MB = 1024 * 1024


@dataclass(frozen=True)
class System:
    """What runs, and where. `pids`: the process of each part, the scripted provider included."""

    url: str
    key: str
    temporal_address: str
    database_url: str
    pids: Mapping[str, int]


@asynccontextmanager
async def running(
    folder: Path,
    asks_for: str = LOOKUP_CALL,
    settings: Mapping[str, str] | None = None,
    provider_module: str = "holdfast.testing.provider",
) -> AsyncIterator[System]:
    """PostgreSQL, Temporal, one worker and one API run while the block does, with the scripted provider beside them.

    `asks_for`: the tool call that the scripted provider asks for first. `settings`: variables of worker and API.
    `provider_module`: another provider, which is told its port.
    """
    # Measured as installed: without bytecode the sandbox would compile the workflow's modules anew for every run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    port = free_port()
    scripted = ["--latency-ms", str(MODEL_LATENCY_MS), "--tool", asks_for]
    options = scripted if provider_module == "holdfast.testing.provider" else []
    provider = _start_provider(port, provider_module, options, folder / "provider.log")
    try:
        await provider.wait_until(lambda: is_listening(port), timeout_s=30)
        os.environ.update({_PROVIDER_VARIABLE: f"http://127.0.0.1:{port}/v1", **(settings or {})})
        data = folder / "state"
        where = Options(
            data=data,
            agents=AGENTS,
            port=free_port(),
            temporal_port=free_port(),
            temporal_ui_port=free_port(),
            verbose=False,
        )
        async with DevStack(where, say=lambda line: print(f"  {line}", flush=True)).started() as stack:
            yield System(
                url=stack.url,
                key=stack.key,
                temporal_address=f"127.0.0.1:{where.temporal_port}",
                # The superuser, whom row-level security does not bind: for counting, and for the floor's own database.
                database_url=Postgres(data / "postgres", data / "unused.log").url(),
                pids={**_find_parts(), "provider": provider.pid},
            )
    finally:
        provider.stop(timeout_s=5)


def _start_provider(port: int, module: str, options: list[str], log: Path) -> Child:
    return Child("provider", [sys.executable, "-m", module, "--port", str(port), *options], log=log, env={})


def _find_parts() -> dict[str, int]:
    commands = {child.pid: " ".join(child.cmdline()) for child in psutil.Process().children()}
    return {part: next(pid for pid, command in commands.items() if words in command) for part, words in _PARTS.items()}


class WorkerProcess:
    """The worker of a running system, to be killed and started again: the same command, environment and folder."""

    def __init__(self, pid: int, log: Path) -> None:
        self._process = psutil.Process(pid)
        self._command = self._process.cmdline()
        self._environment = self._process.environ()
        self._folder = Path(self._process.cwd())
        self._log = log

    def kill(self) -> None:
        """kill -9; killed before, it does nothing."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()
            self._process.wait()

    async def start(self) -> float:
        """Start it again; answers with the moment when /readyz first said so, to 10 ms."""
        child = Child("worker", self._command, log=self._log, env=self._environment, cwd=self._folder)
        self._process = psutil.Process(child.pid)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not await self._is_ready():
            if child.exit_code() is not None or time.monotonic() > deadline:
                raise Unavailable(f"the worker did not start again: {child.last_words()}")
            await asyncio.sleep(0.01)
        return time.time()

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._environment[_HEALTH_PORT_VARIABLE])
        except OSError:
            return False
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        status_line = await reader.readline()
        writer.close()
        return b" 200 " in status_line


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and of all that came of it, so far."""
    return sum(_cpu_seconds(process) for process in _tree(pid))


def resident_mb(pid: int) -> float:
    """The resident memory of a process and its descendants."""
    return sum(process.memory_info().rss for process in _tree(pid)) / _MB


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [*top.children(recursive=True), top]


def _cpu_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system + times.children_user + times.children_system
    return 0.0  # it has just ended: its parent, read after it, has waited for it


@dataclass(frozen=True)
class Usage:
    """CPU seconds by part over a time, and how much of the machine's CPU others used meanwhile (0 to 1)."""

    seconds_by_part: Mapping[str, float]
    others: float

    def ms_a_message(self, messages: int) -> dict[str, float]:
        return {part: seconds * 1000 / messages for part, seconds in self.seconds_by_part.items()}


class Meter:
    """Reads CPU before and after: `meter = Meter(pids)`, the load, `usage = await meter.stop()`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {**pids, "load client": os.getpid()}
        self._before = _Reading.take(self._pids)

    async def stop(self) -> Usage:
        """What was used since the meter was made, with what follows the last reply."""
        await asyncio.sleep(_SETTLE_S)
        now = _Reading.take(self._pids)
        used = {part: now.seconds_by_part[part] - self._before.seconds_by_part[part] for part in self._pids}
        available = (now.at - self._before.at) * (psutil.cpu_count() or 1)
        return Usage(used, max(0.0, now.busy - self._before.busy - sum(used.values())) / available)


@dataclass(frozen=True)
class _Reading:
    at: float
    busy: float
    seconds_by_part: Mapping[str, float]

    @classmethod
    def take(cls, pids: Mapping[str, int]) -> Self:
        machine = psutil.cpu_times()
        busy = machine.user + machine.system + machine.nice
        return cls(time.monotonic(), busy, {part: _own_or_tree(part, pid) for part, pid in pids.items()})


def _own_or_tree(part: str, pid: int) -> float:
    if part != "load client":
        return cpu_seconds(pid)
    # The parts are children of this process: its own time only.
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
