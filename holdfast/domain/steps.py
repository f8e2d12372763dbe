"""What goes into the activities and what comes out: ids and small decisions, never a transcript.

These are the payloads in Temporal's history, so each field costs bytes in every run. A field may be added with a
default; none may be renamed or removed while histories that hold it are open.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.tools import ToolCallStatus


@dataclass(frozen=True)
class MessageInput:
    """What starts a `MessageWorkflow`."""

    tenant_id: str
    run_id: str
    agent: str


@dataclass(frozen=True)
class RunRef:
    """Which run an activity works on."""

    tenant_id: str
    run_id: str


@dataclass(frozen=True)
class Turn:
    """`taken`: the run has the conversation's turn; otherwise it waits behind an earlier run.

    `ended_before`: the run has ended already, and its workflow was reset by an operator: nothing is left to do.
    """

    taken: bool
    max_steps: int = 0
    model: str = ""
    ended_before: bool = False


@dataclass(frozen=True)
class ModelStep:
    """Which model call of which run. `last`: the model is asked to answer without further tools."""

    tenant_id: str
    run_id: str
    step: int
    last: bool = False


class NextAct(StrEnum):
    """What the workflow does with a proposed call."""

    EXECUTE = "execute"  #: the policy allows it
    CONFIRM = "confirm"  #: a person is asked first
    SKIP = "skip"  #: settled already: denied, or its arguments don't fit; the model is told


@dataclass(frozen=True)
class ProposedCall:
    """A tool call the model asked for, as far as the workflow needs to know it. `only_reads`: it changes nothing."""

    tool_call_id: str
    tool: str
    act: NextAct
    timeout_s: float = 0.0
    only_reads: bool = False


@dataclass(frozen=True)
class ModelAnswer:
    """What the model said: tool calls to do, or nothing further, which means that the reply is stored."""

    calls: list[ProposedCall] = field(default_factory=list)


@dataclass(frozen=True)
class CallRef:
    """Which tool call an activity works on."""

    tenant_id: str
    run_id: str
    tool_call_id: str


@dataclass(frozen=True)
class ConfirmationRequested:
    """A confirmation that now waits for a person, until `deadline` (UTC)."""

    confirmation_id: str
    deadline: datetime


@dataclass(frozen=True)
class ConfirmationCheck:
    """Asks what became of a confirmation. `deadline_passed`: expire it if nobody has decided."""

    tenant_id: str
    run_id: str
    confirmation_id: str
    deadline_passed: bool


@dataclass(frozen=True)
class ConfirmationOutcome:
    """What became of a confirmation; `pending` when whatever woke the workflow decided nothing."""

    status: ConfirmationStatus


@dataclass(frozen=True)
class ToolOutcome:
    """What became of a tool call. Its result is in the ledger."""

    status: ToolCallStatus


class Ending(StrEnum):
    """How a run ends."""

    REPLIED = "replied"  #: the last model call's text is the reply
    OUT_OF_STEPS = "out_of_steps"  #: the model still wanted tools after `max_steps` calls
    MODELS_EXHAUSTED = "models_exhausted"  #: no model answered within the agent's patience
    UNEXPECTED_ERROR = "unexpected_error"  #: an error of ours
    CANCELLED = "cancelled"  #: stopped on request


@dataclass(frozen=True)
class Finish:
    """Ends a run. `steps`: how many model calls answered, the last of which holds the reply."""

    tenant_id: str
    run_id: str
    ending: Ending
    steps: int


@dataclass(frozen=True)
class TurnPassed:
    """The turn is free again. `next_workflow_id`: the workflow of the run that waited longest, to be woken."""

    next_workflow_id: str | None = None
