"""What happens in a run, as its event log tells it: every type of event, and its data.

A log is one sequence, numbered from 1. It begins with `run.queued` (or `run.merged`) and is closed by one of
`TERMINAL`; what becomes known after that stands in the run, not in its log. It names no person and holds no message of
a user: in it are ids, and what a program needs to show what goes on.

Text comes in pieces, `message.delta`, while a model writes it. They are a preview, and may be lost: `message.completed`
has the whole text of the same step, and stands in place of its pieces. Of a run that completed, the last
`message.completed` is the reply.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar

from holdfast.domain.confirmations import Confirmation
from holdfast.domain.tools import ToolCallStatus

#: How much of a tool call's arguments or result is shown, in characters; all of it stands in the tool call.
MAX_SHOWN = 4_000


@dataclass(frozen=True)
class Event:
    """Something that happened. Its data are its fields."""

    TYPE: ClassVar[str]

    @property
    def data(self) -> str:
        """Its data as JSON text, of ASCII characters alone: whatever a model wrote can be stored so."""
        return json.dumps(vars(self), default=datetime.isoformat)


@dataclass(frozen=True)
class LoggedEvent:
    """An event as it is read: its number, its type, and its data as JSON text."""

    seq: int
    type: str
    data: str


@dataclass(frozen=True)
class RunQueued(Event):
    """The message is accepted; its run waits for its workflow, or for the conversation's turn."""

    TYPE = "run.queued"
    run_id: str
    conversation_id: str
    message_id: str
    agent: str


@dataclass(frozen=True)
class RunStarted(Event):
    """The run has the turn."""

    TYPE = "run.started"


@dataclass(frozen=True)
class RunMerged(Event):
    """The message joined the run `merged_into`, which answers it: read on there."""

    TYPE = "run.merged"
    run_id: str
    conversation_id: str
    message_id: str
    merged_into: str


@dataclass(frozen=True)
class RunCompleted(Event):
    """The run has a reply. `degraded`: an apology instead of an answer, since `error`."""

    TYPE = "run.completed"
    reply_id: str | None
    degraded: bool
    error: str | None


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended by an error of ours, or was terminated from outside."""

    TYPE = "run.failed"
    reply_id: str | None
    error: str | None


@dataclass(frozen=True)
class RunCancelled(Event):
    """The run was stopped; by whom or what, `error` says."""

    TYPE = "run.cancelled"
    reply_id: str | None
    error: str | None


@dataclass(frozen=True)
class MessageDelta(Event):
    """A piece of text. `attempt` counts the tries that streamed text, over the whole run."""

    TYPE = "message.delta"
    step: int
    attempt: int
    text: str


@dataclass(frozen=True)
class MessageReset(Event):
    """What was streamed under this `attempt` is void: it broke off. Another try, if any, begins anew."""

    TYPE = "message.reset"
    step: int
    attempt: int


@dataclass(frozen=True)
class MessageCompleted(Event):
    """The whole text of a step, which may call tools beside it. `step` null: an apology, which no model wrote."""

    TYPE = "message.completed"
    step: int | None
    text: str


@dataclass(frozen=True)
class ToolCallProposed(Event):
    """The model wants a call. `arguments` null: they don't fit the tool, or are longer than `MAX_SHOWN` as JSON."""

    TYPE = "tool_call.proposed"
    tool_call_id: str
    step: int
    tool: str
    arguments: Mapping[str, Any] | None
    effect: str


@dataclass(frozen=True)
class ToolCallHandedOver(Event):
    """The call is of a tool of the client: the run ends with it. `arguments`: JSON text, whole."""

    TYPE = "tool_call.handed_over"
    tool_call_id: str
    tool: str
    arguments: str


@dataclass(frozen=True)
class ToolCallStarted(Event):
    """The call is handed to its tool; from here on its effect may have happened. `attempt` counts how often."""

    TYPE = "tool_call.started"
    tool_call_id: str
    tool: str
    attempt: int


@dataclass(frozen=True)
class ToolCallSucceeded(Event):
    """The tool returned. `result`: JSON text, or the first `MAX_SHOWN` characters of it, if `is_cut`."""

    TYPE = "tool_call.succeeded"
    tool_call_id: str
    tool: str
    result: str
    is_cut: bool


@dataclass(frozen=True)
class _Unsuccessful(Event):
    tool_call_id: str
    tool: str
    error: str | None


class ToolCallFailed(_Unsuccessful):
    """The tool raised, or its arguments did not fit; `error` is what the model is told."""

    TYPE = "tool_call.failed"


class ToolCallAmbiguous(_Unsuccessful):
    """Nobody knows whether the effect happened."""

    TYPE = "tool_call.ambiguous"


class ToolCallDenied(_Unsuccessful):
    """The policy forbids the call, or what would run is not what was approved."""

    TYPE = "tool_call.denied"


class ToolCallRejected(_Unsuccessful):
    """A person said no; or answered in the tool's place, and `error` is null."""

    TYPE = "tool_call.rejected"


class ToolCallExpired(_Unsuccessful):
    """Nobody confirmed the call in time."""

    TYPE = "tool_call.expired"


class ToolCallWithdrawn(_Unsuccessful):
    """The call can't run any more: its run ended, or the user wrote again."""

    TYPE = "tool_call.withdrawn"


@dataclass(frozen=True)
class ConfirmationRequested(Event):
    """A person is asked; all that a decision needs. `kind`, `tool_call_id` and the others as in `Confirmation`."""

    TYPE = "confirmation.requested"
    confirmation_id: str
    kind: str
    tool_call_id: str | None
    tool: str
    arguments: Mapping[str, Any]
    arguments_digest: str
    rule: str
    deadline: datetime
    on_deadline: str

    @classmethod
    def of(cls, asked: Confirmation) -> "ConfirmationRequested":
        return cls(**{field.name: getattr(asked, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class ConfirmationReminded(Event):
    """The people who are asked were reminded."""

    TYPE = "confirmation.reminded"
    confirmation_id: str
    deadline: datetime


@dataclass(frozen=True)
class ConfirmationEscalated(Event):
    """Further people are asked, until this deadline."""

    TYPE = "confirmation.escalated"
    confirmation_id: str
    deadline: datetime
    on_deadline: str


@dataclass(frozen=True)
class ConfirmationDecided(Event):
    """A person decided: `approve`, `edit`, `reject`, `respond`; or said what became of a call."""

    TYPE = "confirmation.decided"
    confirmation_id: str
    decision: str
    reason: str | None
    edited_arguments: Mapping[str, Any] | None


@dataclass(frozen=True)
class ConfirmationExpired(Event):
    """Nobody decided before the deadline."""

    TYPE = "confirmation.expired"
    confirmation_id: str


@dataclass(frozen=True)
class ConfirmationWithdrawn(Event):
    """It is not asked any more; `why`."""

    TYPE = "confirmation.withdrawn"
    confirmation_id: str
    why: str | None


#: The last event of a log.
TERMINAL = frozenset(kind.TYPE for kind in (RunMerged, RunCompleted, RunFailed, RunCancelled))

_UNSUCCESSFUL: Mapping[ToolCallStatus, type[_Unsuccessful]] = {
    ToolCallStatus.FAILED: ToolCallFailed,
    ToolCallStatus.AMBIGUOUS: ToolCallAmbiguous,
    ToolCallStatus.DENIED: ToolCallDenied,
    ToolCallStatus.REJECTED: ToolCallRejected,
    ToolCallStatus.EXPIRED: ToolCallExpired,
    ToolCallStatus.WITHDRAWN: ToolCallWithdrawn,
}


def tool_call_now(
    tool_call_id: str, tool: str, status: ToolCallStatus, *, result: str | None = None, error: str | None = None
) -> list[Event]:
    """What is told of a call that has come to a status; nothing, where another event tells it."""
    if status is ToolCallStatus.SUCCEEDED:
        shown = result or "null"
        return [ToolCallSucceeded(tool_call_id, tool, shown[:MAX_SHOWN], is_cut=len(shown) > MAX_SHOWN)]
    kind = _UNSUCCESSFUL.get(status)
    return [] if kind is None else [kind(tool_call_id, tool, error)]


def shown_arguments(arguments: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Arguments as `ToolCallProposed` has them."""
    return arguments if len(json.dumps(arguments)) <= MAX_SHOWN else None
