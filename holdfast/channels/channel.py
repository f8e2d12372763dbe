"""Channels: the ways in which somebody outside is told of an event, one for each kind of delivery.

A channel is asked for one attempt, and says what came of it by returning or raising. When to try again, for how long,
and what is kept of it, is not its to know: see `activities.delivery`. What it tells may arrive twice, since a worker
may die between the telling and the record of it; what it sends therefore carries the delivery's id.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from holdfast.domain.deliveries import Delivery, Kind


class NotDelivered(Exception):
    """An attempt failed. Its text is stored and shown: a few words of ours, none of the receiver's, and no secret."""


class Permanent(NotDelivered):
    """To try again is no use: the delivery has failed."""


class Retryable(NotDelivered):
    """To try again may help. `retry_after`: for how long the receiver asks not to be asked."""

    def __init__(self, why: str, retry_after: timedelta | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Channel(Protocol):
    """One way to tell."""

    async def deliver(self, delivery: Delivery) -> None:
        """Tell the delivery's target, once, within a minute.

        Raises:
            Permanent: it can't be told.
            Retryable: it could not be told now.
            Any other exception: as `Retryable`, but for the record, which names the exception only.
        """


#: The channels that a worker has, by the kind of delivery that they serve.
Channels = Mapping[Kind, Channel]
