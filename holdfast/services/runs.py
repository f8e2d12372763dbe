"""Runs as their readers see them: state, steps, tool calls, usage, reply."""

import asyncio
import logging
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.errors import NotFound, Unavailable
from holdfast.domain.ids import workflow_id
from holdfast.domain.model_calls import Usage
from holdfast.domain.permissions import WHOLE_TENANT, Caller, Permission, View
from holdfast.domain.runs import OPEN, Run, RunStatus
from holdfast.domain.steps import Ending
from holdfast.domain.tools import ToolCall
from holdfast.services.confirmation_endings import withdraw
from holdfast.store import audit, messages, outbox, runs, steps, tool_calls, turns
from holdfast.store.engine import Database
from holdfast.store.steps import Step
from holdfast.store.turns import Ended
from holdfast.streaming.run_changes import RunChanges
from holdfast.temporal.client import MessageWorkflows

log = logging.getLogger(__name__)


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

    def __init__(self, database: Database, changes: RunChanges, workflows: MessageWorkflows) -> None:
        self._database = database
        self._workflows = workflows
        self._changes = changes

    async def get(self, caller: Caller, run_id: str) -> RunDetail:
        """A run, whole.

        Raises:
            NotFound: the caller sees none with this id.
        """
        return await self._get(caller.tenant_id, run_id, caller.view(Permission.RUNS_READ))

    async def newest_in(self, caller: Caller, conversation_id: str) -> Run | None:
        """The newest run of a conversation; None: the caller sees none there."""
        view = caller.view(Permission.RUNS_READ)
        async with self._database.tenant(caller.tenant_id) as connection:
            return await runs.newest_in(connection, caller.tenant_id, conversation_id, view)

    async def answering(self, caller: Caller, run_id: str) -> RunDetail:
        """The run that answers a run's message: itself, or the one that it was merged into.

        Where the caller does not see that one, it is the run itself, with the other's reply and as the other ended.

        Raises:
            NotFound: the caller sees none with this id.
        """
        own = await self.get(caller, run_id)
        if own.run.merged_into is None:
            return own
        try:
            return await self.get(caller, own.run.merged_into)
        except NotFound:
            return _answered_by(own, await self._get(caller.tenant_id, own.run.merged_into, WHOLE_TENANT))

    async def cancel(self, caller: Caller, run_id: str) -> RunDetail:
        """Stop a run; answers with it as it is then, which may be before its end. One that has ended stays as it is.

        It makes no further step; the model call and the tool that are running are cut off where they can be, and a
        tool call that was handed out has an unknown outcome.

        Raises:
            NotFound: the caller may stop none with this id.
        """
        view = caller.view(Permission.RUNS_CANCEL)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await runs.find(connection, caller.tenant_id, run_id, view) is None:
                raise NotFound("run", run_id)
            workflow = await ask_to_cancel(connection, caller, run_id)
        if workflow is not None:
            await cancel(self._workflows, workflow)
        return await self._get(caller.tenant_id, run_id, view)

    async def page(self, caller: Caller, *, status: RunStatus | None, after: str | None, limit: int) -> list[RunDetail]:
        """A page of the runs that the caller sees, newest first."""
        tenant_id, view = caller.tenant_id, caller.view(Permission.RUNS_READ)
        async with self._database.tenant(tenant_id) as connection:
            found = await runs.page(connection, tenant_id, view, status=status, after=after, limit=limit)
            return await _details(connection, tenant_id, found)

    async def wait(self, caller: Caller, run_id: str, timeout_s: float) -> RunStatus:
        """Wait until a run has ended, or needs a person; answers with its status then, or when the time is up.

        Of one that was merged it is the run which answers its message that is waited for.

        Raises:
            NotFound: the caller sees no run with this id.
        """
        ends_at = asyncio.get_running_loop().time() + timeout_s
        status = await self._wait(caller.tenant_id, run_id, caller.view(Permission.RUNS_READ), timeout_s)
        if status is not RunStatus.MERGED:
            return status
        async with self._database.tenant(caller.tenant_id) as connection:
            merged_into = (await runs.get(connection, caller.tenant_id, run_id)).merged_into
        if merged_into is None:
            return status
        left = ends_at - asyncio.get_running_loop().time()
        return await self._wait(caller.tenant_id, merged_into, WHOLE_TENANT, left)

    async def _get(self, tenant_id: str, run_id: str, view: View) -> RunDetail:
        async with self._database.tenant(tenant_id) as connection:
            run = await runs.find(connection, tenant_id, run_id, view)
            if run is None:
                raise NotFound("run", run_id)
            (detail,) = await _details(connection, tenant_id, [run])
            return detail

    async def _wait(self, tenant_id: str, run_id: str, view: View, timeout_s: float) -> RunStatus:
        async def read() -> RunStatus:
            async with self._database.tenant(tenant_id) as connection:
                status = await runs.status_of(connection, tenant_id, run_id, view)
            if status is None:
                raise NotFound("run", run_id)
            return status

        return await self._changes.wait_until(tenant_id, run_id, read, _needs_no_waiting, timeout_s)


def _answered_by(own: RunDetail, other: RunDetail) -> RunDetail:
    run, ended = own.run, other.run
    told = replace(
        run, status=ended.status, degraded=ended.degraded, error=ended.error, completed_at=ended.completed_at
    )
    return replace(own, run=told, reply=other.reply)


def _needs_no_waiting(status: RunStatus) -> bool:
    # A run that waits for a person may do so for days; whoever waits for the run is better told at once.
    return status not in OPEN or status is RunStatus.REQUIRES_CONFIRMATION


async def ask_to_cancel(connection: AsyncConnection, caller: Caller, run_id: str, why: str | None = None) -> str | None:
    """Take note, durably, that a run is to be stopped. Answers with its workflow; None: it has ended, or was asked."""
    tenant_id = caller.tenant_id
    if not await runs.ask_to_cancel(connection, tenant_id, run_id, caller.person):
        return None
    run = await runs.get(connection, tenant_id, run_id)
    workflow = workflow_id(tenant_id, run.agent, run.message_id)
    await outbox.add_cancel(connection, tenant_id, run_id, workflow)
    entry = audit.Entry(kind="run", outcome="cancel requested", run_id=run_id, person=caller.person, detail=why)
    await audit.append(connection, tenant_id, entry)
    return workflow


async def cancel(workflows: MessageWorkflows, workflow: str) -> None:
    """Ask Temporal to cancel a workflow, if it answers; the relay does otherwise."""
    try:
        await workflows.cancel(workflow)
    except Unavailable as error:
        log.warning("a cancellation is stored and will be told by the relay: %s", error)


#: Why a run ended whose workflow was ended by somebody else.
TERMINATED = "terminated from outside"


async def end_lost(connection: AsyncConnection, tenant_id: str, run_id: str, why: str) -> bool:
    """End a run whose workflow does not run any more, and wake the next one. False: it has ended before."""
    return await _end(connection, tenant_id, run_id, RunStatus.FAILED, error=why)


async def end_stopped(connection: AsyncConnection, tenant_id: str, run_id: str) -> None:
    """End a run that was asked to end, and has not; its workflow is told once more, as soon as it can be."""
    if await _end(connection, tenant_id, run_id, RunStatus.CANCELLED, error=Ending.CANCELLED):
        run = await runs.get(connection, tenant_id, run_id)
        await outbox.add_cancel(connection, tenant_id, run_id, workflow_id(tenant_id, run.agent, run.message_id))


async def _end(connection: AsyncConnection, tenant_id: str, run_id: str, status: RunStatus, *, error: str) -> bool:
    await turns.lock(connection, tenant_id, run_id)
    if await runs.status_of(connection, tenant_id, run_id, WHOLE_TENANT) not in OPEN:
        return False
    await withdraw(connection, tenant_id, run_id)
    following = await turns.end(connection, tenant_id, run_id, Ended(status, degraded=False, error=error))
    if following is not None:
        await outbox.add_freed(connection, tenant_id, run_id, following)
    return True


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
