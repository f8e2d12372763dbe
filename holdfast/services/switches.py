"""The kill switch: thrown and lifted by people, and carried out until nothing that it covers runs any more.

Throwing is one row, and from its commit on nothing begins. What runs already is asked to end, as by a person who
cancels it: before its next step, with the model call and the tool that are on their way cut off. A run that has not
ended after `PATIENCE`, since no worker or no Temporal is there to end it, is ended here: its record says so, what it
asked of people is withdrawn, and its workflow is told as soon as it can be. Every API process and every worker does
this, and goes on with it after a restart.
"""

import asyncio
import contextlib
import logging
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import HoldfastError, InvalidInput, NotFound
from holdfast.domain.permissions import Caller
from holdfast.domain.storable import is_storable
from holdfast.domain.switches import EVERYBODY, Scope, Switch
from holdfast.services.looking import Looking
from holdfast.services.runs import ask_to_cancel, cancel, end_stopped
from holdfast.store import agents, audit, switches, tenants
from holdfast.store.engine import Database
from holdfast.store.switches import LeftToStop
from holdfast.temporal.client import MessageWorkflows

log = logging.getLogger(__name__)

#: How long runs have to end by themselves. With the rest between two looks, all are stopped within five seconds.
PATIENCE = timedelta(seconds=2.5)

MAX_REASON_CHARACTERS = 500

#: How long to rest between two looks, in seconds.
_REST_S = 1.0

#: How many runs of a tenant are stopped in one look, and how many transactions there are at once.
_BATCH = 1_000
_AT_ONCE = 4

#: How many workflows are told at once, and for how long in all, in seconds: Temporal may be away.
_TOLD_AT_ONCE = 20
_TELLING_S = 1.0


class Switches:
    """Throws, lifts and shows switches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def thrown(self, tenant_id: str) -> list[Switch]:
        """Every switch that stops something of a tenant, the one for everything included."""
        async with self._database.tenant(tenant_id) as connection:
            return await switches.thrown(connection, tenant_id)

    async def get(self, scope: Scope) -> Switch:
        """A switch that is thrown.

        Raises:
            NotFound: it is not.
        """
        for switch in await self.thrown(scope.tenant_id):
            if switch.scope == scope:
                return switch
        raise NotFound("switch", str(scope))

    async def throw(self, scope: Scope, reason: str, person: str) -> Switch:
        """Throw a switch: from here on, nothing that it covers begins, and what runs is stopped within seconds.

        Raises:
            InvalidInput: the reason is empty, too long or can't be stored.
            NotFound: there is no such agent, or no such tenant.
        """
        if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS or not is_storable(reason):
            raise InvalidInput("reason", f"Give a reason, of at most {MAX_REASON_CHARACTERS} plain characters.")
        async with self._database.tenant(scope.tenant_id) as connection:
            if scope.tenant_id != EVERYBODY and not await tenants.is_known(connection, scope.tenant_id):
                raise NotFound("tenant", scope.tenant_id)
            if scope.agent and await agents.latest_version(connection, scope.tenant_id, scope.agent) is None:
                raise NotFound("agent", scope.agent)
            switch = await switches.throw(connection, scope, reason, person)
            await audit.append(connection, scope.tenant_id, _entry(switch, "stopped", person))
        return switch

    async def lift(self, scope: Scope, person: str) -> Switch:
        """Lift a switch; answers with it as it was. What it stopped stays stopped.

        Raises:
            NotFound: it is not thrown.
        """
        async with self._database.tenant(scope.tenant_id) as connection:
            switch = await switches.lift(connection, scope)
            if switch is None:
                raise NotFound("switch", str(scope))
            await audit.append(connection, scope.tenant_id, _entry(switch, "lifted", person))
        return switch


class Stopper(Looking):
    """Stops what the switches cover. Runs in every API process and worker; several of them stop each run once."""

    def __init__(self, database: Database, workflows: MessageWorkflows) -> None:
        super().__init__("stopper")
        self._database = database
        self._workflows = workflows
        self._looks = asyncio.Event()
        self._room = asyncio.Semaphore(_AT_ONCE)

    def look(self) -> None:
        """Look at once: a switch has just been thrown."""
        self._looks.set()

    async def stop_all(self) -> int:
        """Look once; answers with how many runs were asked to end, or ended."""
        async with self._database.relay() as connection:
            tenants = await switches.stopped_tenants(connection)
        return sum(await asyncio.gather(*(self._stop_runs_of(tenant_id) for tenant_id in tenants)))

    async def _look(self) -> None:
        self._looks.clear()
        await self.stop_all()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                await self._looks.wait()

    async def _stop_runs_of(self, tenant_id: str) -> int:
        async with self._room, self._database.tenant(tenant_id) as connection:
            left = await switches.left_to_stop(connection, tenant_id, PATIENCE, _BATCH)
        asked = await asyncio.gather(*(self._stop_run(tenant_id, run) for run in left))
        await self._tell([workflow for workflow in asked if workflow is not None])
        return len(left)

    async def _stop_run(self, tenant_id: str, run: LeftToStop) -> str | None:
        """Ask a run to end, or end it; answers with the workflow that is to be told.

        In a transaction for each run: one that held several could wait in a circle with somebody else's.
        """
        why = f"stopped: {run.switch.reason}"
        try:
            async with self._room, self._database.tenant(tenant_id) as connection:
                if not run.is_overdue:
                    return await ask_to_cancel(connection, Caller(tenant_id, run.switch.thrown_by), run.run_id, why)
                await end_stopped(connection, tenant_id, run.run_id)
        except (HoldfastError, SQLAlchemyError) as error:
            # The others are not to wait for it.
            log.warning("run %s can't be stopped yet, trying again: %s", run.run_id, type(error).__name__)
        return None

    async def _tell(self, workflows: list[str]) -> None:
        """Tell Temporal, while it listens; the outbox has every word, and the relay says again what was not heard."""
        room = asyncio.Semaphore(_TOLD_AT_ONCE)

        async def tell(workflow: str) -> None:
            async with room:
                await cancel(self._workflows, workflow)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELLING_S):
                await asyncio.gather(*(tell(workflow) for workflow in workflows))


def _entry(switch: Switch, outcome: str, person: str) -> audit.Entry:
    return audit.Entry(
        kind="switch", outcome=outcome, subject_id=str(switch.scope), person=person, detail=switch.reason
    )
