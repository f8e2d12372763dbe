"""A run: what becomes of one message."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands. The transitions that the database accepts are `TRANSITIONS`."""

    QUEUED = "queued"  #: accepted; waits for its workflow to start, or for the conversation's turn
    RUNNING = "running"  #: has the turn
    REQUIRES_CONFIRMATION = "requires_confirmation"  #: has the turn, and waits for a person
    COMPLETED = "completed"  #: a reply is stored
    FAILED = "failed"  #: ended by an error of ours, or terminated from outside
    CANCELLED = "cancelled"  #: stopped on request
    MERGED = "merged"  #: its message joined the turn of an earlier run, which answers it


#: Where a run begins: with its message accepted, or with a message that another run takes in at once.
FIRST = frozenset({RunStatus.QUEUED, RunStatus.MERGED})

TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.MERGED}),
    RunStatus.RUNNING: frozenset(
        {RunStatus.REQUIRES_CONFIRMATION, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
    ),
    RunStatus.REQUIRES_CONFIRMATION: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
    RunStatus.MERGED: frozenset(),
}

#: A run that has not ended.
OPEN = frozenset(status for status, following in TRANSITIONS.items() if following)


@dataclass(frozen=True)
class RunToStart:
    """What is needed to start a run's workflow."""

    tenant_id: str
    run_id: str
    conversation_id: str
    message_id: str
    agent: str


@dataclass(frozen=True)
class Run:
    """A run as it is stored. `position` is its place in the conversation, from 1, in order of arrival.

    `requested_by`: who wrote the message, as its sender says; `sent_by`: whose key it came with.
    `merged_into`: the run that answers a merged one's message. `cancelled_by`: who asked for it to be stopped.
    """

    run_id: str
    tenant_id: str
    conversation_id: str
    message_id: str
    agent: str
    agent_version: int
    position: int
    status: RunStatus
    degraded: bool
    error: str | None
    requested_by: str
    sent_by: str
    merged_into: str | None
    cancelled_by: str | None
    created_at: datetime
    completed_at: datetime | None
