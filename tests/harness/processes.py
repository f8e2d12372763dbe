"""A worker in a process of its own, to be killed, with an API in this one; and an API in a process of its own."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.process import Child
from holdfast.testing.provider import ScriptedProvider
from tests.harness.servers import Servers
from tests.harness.stage import AGENTS, PAYLOAD_KEYS, PEPPER, Stage, playing_without_a_worker

_ROOT = Path(__file__).parents[2]
_START_TIMEOUT_S = 60


@dataclass
class KillableWorker:
    """One worker process at a time."""

    environment: dict[str, str]
    log: Path
    child: Child | None = None

    async def start(self) -> None:
        """Start it, and wait until it works."""
        port = free_port()
        environment = {**self.environment, "HOLDFAST_WORKER_HEALTH_PORT": str(port)}
        self.child = Child("worker", [sys.executable, "-m", "worker"], log=self.log, env=environment, cwd=_ROOT)
        await self.child.wait_until(lambda: is_listening(port), _START_TIMEOUT_S)

    def kill(self) -> None:
        """kill -9, as the kernel would when memory runs out."""
        if self.child is not None:
            self.child.kill()


@asynccontextmanager
async def api_process(stage: Stage, log: Path, **variables: str) -> AsyncIterator[tuple[str, Child]]:
    """An API in a process of its own, beside the stage's; gives its URL, and the process, which may be killed."""
    port = free_port()
    environment = {
        "HOLDFAST_ENVIRONMENT": "dev",
        "HOLDFAST_DATABASE_URL": stage.database_url,
        "HOLDFAST_KEY_PEPPER": PEPPER,
        "HOLDFAST_PAYLOAD_KEYS": PAYLOAD_KEYS,
        "HOLDFAST_TASK_QUEUE": stage.task_queue,
        "HOLDFAST_API_PORT": str(port),
        **variables,
    }
    child = Child("api", [sys.executable, "-m", "api"], log=log, env=environment, cwd=_ROOT)
    try:
        await child.wait_until(lambda: is_listening(port), _START_TIMEOUT_S)
        yield f"http://127.0.0.1:{port}", child
    finally:
        child.kill()


@dataclass(frozen=True)
class KillableStage:
    """A stage whose worker can be killed."""

    stage: Stage
    worker: KillableWorker


def worker_environment(database_url: str, task_queue: str) -> dict[str, str]:
    """Variables of a worker of the tests."""
    return {
        "HOLDFAST_ENVIRONMENT": "dev",
        "HOLDFAST_DATABASE_URL": database_url,
        "HOLDFAST_AGENTS": str(AGENTS),
        "HOLDFAST_PAYLOAD_KEYS": PAYLOAD_KEYS,
        "HOLDFAST_TASK_QUEUE": task_queue,
        "HOLDFAST_WORKER_DRAIN_S": "0",
    }


@asynccontextmanager
async def playing_with_a_killable_worker(
    servers: Servers, provider: ScriptedProvider, name: str, log: Path
) -> AsyncIterator[KillableStage]:
    """An API in this process, and no worker yet, while the block runs; on a database and a task queue called `name`."""
    async with playing_without_a_worker(servers, provider, name) as stage:
        worker = KillableWorker(worker_environment(stage.database_url, name), log)
        try:
            yield KillableStage(stage, worker)
        finally:
            await stage.dismiss_callers()
            worker.kill()
