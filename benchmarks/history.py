"""What a message leaves in Temporal: events, bytes, and workflow tasks, each a round trip of server and worker."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from holdfast.dev.stack import TENANT
from holdfast.domain.ids import workflow_id


@dataclass(frozen=True)
class History:
    """The length and size that the server reports for a run, and how many workflow tasks it took."""

    events: int
    bytes: int
    workflow_tasks: int


class Histories:
    """Reads the histories of runs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, run: dict[str, Any]) -> History:
        """The history of a run, given as the API answers with it."""
        handle = self._client.get_workflow_handle(workflow_id(TENANT, run["agent"], run["message_id"]))
        info = (await handle.describe()).raw_description.workflow_execution_info
        tasks = 0
        async for event in handle.fetch_history_events():
            tasks += event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        return History(info.history_length, info.history_size_bytes, tasks)


@asynccontextmanager
async def reading(address: str) -> AsyncIterator[Histories]:
    """A connection to Temporal while the block runs."""
    histories = Histories(await Client.connect(address))
    try:
        yield histories
    finally:
        # A process that ends with a client still alive can abort at its exit.
        del histories
        gc.collect()
