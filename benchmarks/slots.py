"""What a worker holds while it waits, as it says itself: the heartbeat that its SDK sends to Temporal once a minute."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client

from benchmarks.load import WrongResult

#: The SDK's interval is 60 s.
_PATIENCE_S = 100


@dataclass(frozen=True)
class Slots:
    """The slots in use at the moment of a heartbeat, by what is done in them, and the runs in the worker's cache."""

    workflow_tasks: int
    activities: int
    local_activities: int
    cached_runs: int

    @classmethod
    def of(cls, heartbeat: WorkerHeartbeat) -> "Slots":
        return cls(
            heartbeat.workflow_task_slots_info.current_used_slots,
            heartbeat.activity_task_slots_info.current_used_slots,
            heartbeat.local_activity_slots_info.current_used_slots,
            heartbeat.current_sticky_cache_size,
        )


class Heartbeats:
    """Reads the heartbeats of workers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def next_of(self, pid: int) -> Slots:
        """The first heartbeat of this process that is sent from now on."""
        asked_at = time.time()
        while time.time() < asked_at + _PATIENCE_S:
            request = ListWorkersRequest(namespace=self._client.namespace)
            for worker in (await self._client.workflow_service.list_workers(request)).workers_info:
                heartbeat = worker.worker_heartbeat
                sent_at = heartbeat.heartbeat_time.ToNanoseconds() / 1e9
                if heartbeat.host_info.process_id == str(pid) and sent_at > asked_at:
                    return Slots.of(heartbeat)
            await asyncio.sleep(1)
        raise WrongResult(f"the worker sent no heartbeat for {_PATIENCE_S} s")


@asynccontextmanager
async def reading(address: str) -> AsyncIterator[Heartbeats]:
    """A connection to Temporal while the block runs."""
    heartbeats = Heartbeats(await Client.connect(address))
    try:
        yield heartbeats
    finally:
        # A process that ends with a client still alive can abort at its exit.
        del heartbeats
        gc.collect()
