"""Telling receivers outside of events: one attempt at a time, until it is taken or has had its time.

An attempt is counted before it is made, and what came of it is stored after. A worker that dies in between has told the
receiver, who is told again, under the same id. Settled is a delivery once, by a compare on its row.

How long to wait is decided here and handed to Temporal's server with the failure of the attempt, so waiting takes no
slot, and no event of the workflow's history.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.heartbeat import heartbeating
from holdfast.channels.channel import Channels, Permanent, Retryable
from holdfast.domain.deliveries import Backoff, DeliveryStatus
from holdfast.domain.errors import TooManyRequests
from holdfast.domain.steps import DeliveryOutcome, DeliveryRef
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.store import deliveries, switches
from holdfast.store.deliveries import Begun
from holdfast.store.engine import Database

#: How long to wait where the tenant is stopped by a kill switch, or has too many attempts in flight: some seconds more
#: or less, so that not all come back at once.
_WHILE_STOPPED = timedelta(seconds=30)
_WHILE_BUSY = timedelta(seconds=10)


@dataclass(frozen=True)
class Room:
    """How many attempts of a kind are in flight in this process: receivers that hang, of one tenant or of many, must
    not come to hold every slot of the worker, nor webhooks those of Slack."""

    of_tenant: TenantSlots
    of_all: TenantSlots

    @asynccontextmanager
    async def one(self, delivery: DeliveryRef) -> AsyncIterator[None]:
        """Raises `TooManyRequests` where there is none."""
        kind = delivery.kind
        async with self.of_tenant.one(f"{kind}:{delivery.tenant_id}"), self.of_all.one(kind):
            yield


class DeliveryActivities:
    """Makes attempts at deliveries. `backoff`: when to try again, by the kind."""

    def __init__(self, database: Database, channels: Channels, backoff: Callable[[str], Backoff], room: Room) -> None:
        self._database = database
        self._channels = channels
        self._backoff = backoff
        self._room = room

    @activity.defn
    async def deliver(self, delivery: DeliveryRef) -> DeliveryOutcome:
        """Make one attempt. Raises for another, with the time to wait until then."""
        try:
            async with heartbeating(), self._room.one(delivery):
                return await self._attempt(delivery)
        except TooManyRequests:
            wait = _WHILE_BUSY * random.uniform(0.5, 1.5)
        async with self._database.tenant(delivery.tenant_id) as connection:
            await deliveries.postpone(connection, delivery, wait)
        raise _again(wait)

    async def _attempt(self, own: DeliveryRef) -> DeliveryOutcome:
        begun = await self._begin(own)
        if begun is None:
            return DeliveryOutcome(None)
        try:
            await self._tell(begun)
        except Permanent as error:
            return await self._settle(own, DeliveryStatus.FAILED, str(error))
        except Retryable as error:
            return await self._postpone(own, begun, error)
        except Exception as error:  # whatever it was: it is this delivery's, and no reason to try for ever
            activity.logger.exception("an attempt at a delivery ended by an error that nobody foresaw")
            return await self._postpone(own, begun, Retryable(f"an error of ours: {type(error).__name__}"))
        return await self._settle(own, DeliveryStatus.DELIVERED)

    async def _begin(self, own: DeliveryRef) -> Begun | None:
        async with self._database.tenant(own.tenant_id) as connection:
            if await switches.standing(connection, own.tenant_id) is None:
                begun = await deliveries.begin(connection, own)
                if begun is None:
                    await deliveries.heard(connection, own)
                return begun
            # While everything of the tenant is stopped, nothing leaves; it is told after, however long that takes.
            wait = _WHILE_STOPPED * random.uniform(0.5, 1.5)
            await deliveries.hold(connection, own, wait, "a kill switch is thrown")
        raise _again(wait)

    async def _tell(self, begun: Begun) -> None:
        if begun.delivery is None:
            raise Permanent("what happened was erased")
        channel = self._channels.get(begun.delivery.kind)
        if channel is None:
            raise Retryable(f"no worker here can tell by {begun.delivery.kind}")
        await channel.deliver(begun.delivery)

    async def _postpone(self, own: DeliveryRef, begun: Begun, error: Retryable) -> DeliveryOutcome:
        backoff = self._backoff(own.kind)
        wait = backoff.wait(begun.attempts, begun.pending_since, datetime.now(UTC), error.retry_after)
        if wait is None:
            return await self._settle(own, DeliveryStatus.FAILED, str(error))
        async with self._database.tenant(own.tenant_id) as connection:
            await deliveries.postpone(connection, own, wait, str(error))
        raise _again(wait)

    async def _settle(self, own: DeliveryRef, status: DeliveryStatus, error: str | None = None) -> DeliveryOutcome:
        async with self._database.tenant(own.tenant_id) as connection:
            is_settled = await deliveries.settle(connection, own, status, error)
        return DeliveryOutcome(status.value if is_settled else None)


def _again(wait: timedelta) -> ApplicationError:
    # Benign: it is on record where it belongs, and no line of the worker's log.
    return ApplicationError("to be tried again", next_retry_delay=wait, category=ApplicationErrorCategory.BENIGN)
