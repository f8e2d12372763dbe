"""The sweeper: looks for runs that nobody moves any more.

A run whose workflow was terminated from outside, or failed, has nobody left to end it: it would hold its conversation's
turn, and its confirmations would wait for nobody. The next message of the conversation notices; the sweeper does where
no message comes. And a workflow whose task fails again and again, after a bad deployment, is told to the operator.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from holdfast.domain.runs import OPEN
from holdfast.services.looking import Looking
from holdfast.services.runs import TERMINATED, end_lost
from holdfast.store import runs
from holdfast.store.engine import Database
from holdfast.temporal.client import EndedWorkflow, MessageWorkflows

log = logging.getLogger(__name__)

#: How long to rest between two looks, in seconds.
_REST_S = 10.0

#: How far each look reaches back beyond the one before: Temporal lists a workflow seconds after it ended.
_OVERLAP = timedelta(minutes=2)


class Sweeper(Looking):
    """Runs in every API process. Several of them do the same work, which done twice changes nothing."""

    def __init__(self, database: Database, workflows: MessageWorkflows) -> None:
        super().__init__("sweeper")
        self._database = database
        self._workflows = workflows
        self._looked_at: datetime | None = None
        self._told: set[str] = set()

    async def sweep(self) -> int:
        """Look once; answers with how many runs were ended because their workflows had."""
        now = datetime.now(UTC)
        # The first look of a process reaches as far back as Temporal remembers.
        since = None if self._looked_at is None else self._looked_at - _OVERLAP
        ended = 0
        for workflow in await self._workflows.ended_from_outside(since):
            ended += await self._end(workflow)
        self._looked_at = now
        await self._tell_stuck()
        return ended

    async def _end(self, workflow: EndedWorkflow) -> bool:
        async with self._database.tenant(workflow.tenant_id) as connection:
            run = await runs.by_message(connection, workflow.tenant_id, workflow.message_id)
        # Looked at outside of a transaction, which is not to wait for Temporal. One that was reset has ended, and goes
        # on under the same id.
        if run is None or run.status not in OPEN or await self._workflows.is_open(workflow.workflow_id):
            return False
        async with self._database.tenant(workflow.tenant_id) as connection:
            return await end_lost(connection, workflow.tenant_id, run.run_id, TERMINATED)

    async def _tell_stuck(self) -> None:
        stuck = set(await self._workflows.stuck())
        for workflow in sorted(stuck - self._told):
            log.error(
                "workflow %s is stuck: its task fails again and again. It heals when the deployment that broke it is "
                "rolled back; look at it in the Temporal UI",
                workflow,
            )
        self._told = stuck

    async def _look(self) -> None:
        await self.sweep()

    async def _rest(self) -> None:
        await asyncio.sleep(_REST_S)
