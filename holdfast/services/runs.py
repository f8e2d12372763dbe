"""Runs as their readers see them: state, steps, tool calls, usage, reply."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.errors import NotFound
from holdfast.domain.model_calls import Usage
from holdfast.domain.runs import OPEN, Run, RunStatus
from holdfast.domain.tools import ToolCall
from holdfast.store import messages, runs, steps, tool_calls
from holdfast.store.engine import Database
from holdfast.store.steps import Step
from holdfast.streaming.run_changes import RunChanges


@dataclass(frozen=True)
class RunDetail:
    """A run with all that came of it."""

    run: Run
    reply: str | None
    steps: list[Step]
    tool_calls: list[ToolCall]
    usage: Usage


class Runs:
    """Reads runs, and waits for them."""

    def __init__(self, database: Database, changes: RunChanges) -> None:
        self._database = database
        self._changes = changes

    async def get(self, tenant_id: str, run_id: str) -> RunDetail:
        """A run, whole.

        Raises:
            NotFound: the tenant has none with this id.
        """
        async with self._database.tenant(tenant_id) as connection:
            run = await runs.find(connection, tenant_id, run_id)
            if run is None:
                raise NotFound("run", run_id)
            (detail,) = await _details(connection, tenant_id, [run])
            return detail

    async def page(self, tenant_id: str, *, status: RunStatus | None, after: str | None, limit: int) -> list[RunDetail]:
        """A page of runs, newest first."""
        async with self._database.tenant(tenant_id) as connection:
            found = await runs.page(connection, tenant_id, status=status, after=after, limit=limit)
            return await _details(connection, tenant_id, found)

    async def wait(self, tenant_id: str, run_id: str, timeout_s: float) -> RunStatus:
        """Wait until a run has ended, or needs a person; answers with its status then, or when the time is up.

        Raises:
            NotFound: the tenant has no run with this id.
        """

        async def read() -> RunStatus:
            async with self._database.tenant(tenant_id) as connection:
                status = await runs.status_of(connection, tenant_id, run_id)
            if status is None:
                raise NotFound("run", run_id)
            return status

        return await self._changes.wait_until(run_id, read, _needs_no_waiting, timeout_s)


def _needs_no_waiting(status: RunStatus) -> bool:
    # A run that waits for a person may do so for days; whoever waits for the run is better told at once.
    return status not in OPEN or status is RunStatus.REQUIRES_CONFIRMATION


async def _details(connection: AsyncConnection, tenant_id: str, found: list[Run]) -> list[RunDetail]:
    """Runs with all that came of them, by one query a kind, however many there are."""
    run_ids = [run.run_id for run in found]
    replies = await messages.replies_of(connection, tenant_id, run_ids)
    all_steps = await steps.of_runs(connection, tenant_id, run_ids)
    all_calls = await tool_calls.of_runs(connection, tenant_id, run_ids)
    return [
        RunDetail(
            run=run,
            reply=replies.get(run.run_id),
            steps=(own := [step for step in all_steps if step.run_id == run.run_id]),
            tool_calls=[call for call in all_calls if call.run_id == run.run_id],
            usage=Usage.total([step.usage for step in own]),
        )
        for run in found
    ]
