"""Deliveries: events of the log, told to receivers outside. What is told, to whom, and when it is tried again.

A receiver subscribes to types of events, of every conversation or of one. Each event of such a type becomes a delivery
in the transaction that logs it, and is settled once: delivered, or failed.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Self, get_args

#: How an event is told; it selects the channel.
Kind = Literal["webhook", "slack"]

#: The types of events that can be subscribed to.
EventType = Literal[
    "run.queued",
    "run.started",
    "run.merged",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "confirmation.requested",
    "confirmation.reminded",
    "confirmation.escalated",
    "confirmation.decided",
    "confirmation.expired",
    "confirmation.withdrawn",
]
DELIVERABLE: tuple[EventType, ...] = get_args(EventType)


class DeliveryStatus(StrEnum):
    """Where a delivery stands. One that is settled may be replayed, and is pending again."""

    PENDING = "pending"  #: to be tried, for the first time or again
    DELIVERED = "delivered"  #: the receiver took it
    FAILED = "failed"  #: given up


@dataclass(frozen=True)
class Subscription:
    """What one target wants to be told: events of these types, of a conversation; that empty: of every one.

    Args:
        target_id: the id of what knows where it goes, such as a webhook.
        is_active: False: nothing new becomes a delivery.
    """

    target_id: str
    kind: Kind
    types: tuple[str, ...]
    conversation_id: str = ""
    is_active: bool = True


@dataclass(frozen=True)
class Delivery:
    """One event to one target, with what a channel needs to tell it. The same in every attempt.

    Args:
        delivery_id: also what a receiver knows it by, if it comes twice.
        agent: whose run it is.
        seq: the event's number in the log of its run; deliveries may overtake each other.
        data: the event's own, as `holdfast.domain.events` has it, with all content.
        happened_at: when it was logged.
    """

    tenant_id: str
    delivery_id: str
    kind: Kind
    target_id: str
    run_id: str
    conversation_id: str
    agent: str
    seq: int
    type: str
    data: Mapping[str, Any]
    happened_at: datetime


@dataclass(frozen=True)
class DeliveryRecord:
    """What became of a delivery. `attempts`: since it was last replayed; `next_attempt_at` None: now, or never."""

    delivery_id: str
    target_id: str
    run_id: str
    seq: int
    type: str
    status: DeliveryStatus
    attempts: int
    replays: int
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True)
class Backoff:
    """When to try again: after `first`, then after twice the time each, at most `longest`; for `patience` in all.

    What fails together is not to come back together: each wait is drawn from half to one and a half of it.
    """

    first: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(hours=4)
    patience: timedelta = timedelta(days=1)

    @classmethod
    def of(cls, kind: str, first: timedelta, patience: timedelta) -> Self:
        """That of a kind: in a thread of Slack somebody waits, and is told soon after Slack is back."""
        return cls(first, timedelta(minutes=15) if kind == "slack" else cls.longest, patience)

    def wait(self, attempts: int, since: datetime, now: datetime, asked: timedelta | None = None) -> timedelta | None:
        """How long to wait after so many attempts; None: no longer. The last attempt is made when patience ends.

        Args:
            asked: for how long the receiver asks not to be asked.
        """
        left = since + self.patience - now
        if left <= timedelta(0):
            return None
        usual = min(self.first * (1 << min(attempts - 1, 40)), self.longest) * random.uniform(0.5, 1.5)
        return min(max(usual, asked or timedelta(0)), left)


#: What of an event's data a webhook tells: ids, states and times. What people and models wrote is not among it, as in
#: the arguments of a call or the reason of a decision: whoever may see it asks for it, by the ids.
_TOLD = frozenset(
    {
        *("run_id", "conversation_id", "message_id", "agent", "merged_into", "reply_id", "degraded"),
        *("confirmation_id", "kind", "tool_call_id", "tool", "arguments_digest", "deadline", "on_deadline", "decision"),
    }
)


def told(delivery: Delivery) -> str:
    """A delivery as the body of a webhook: JSON, the same bytes in every attempt."""
    of_event = {name: value for name, value in delivery.data.items() if name in _TOLD}
    data = {
        **of_event,
        "run_id": delivery.run_id,
        "conversation_id": delivery.conversation_id,
        "agent": delivery.agent,
        "seq": delivery.seq,
    }
    timestamp = delivery.happened_at.isoformat().replace("+00:00", "Z")
    return json.dumps({"type": delivery.type, "timestamp": timestamp, "data": data})
