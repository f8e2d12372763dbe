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

    `ended_before`: the run has ended already: its workflow was reset by an operator, or its message has joined
    another run's turn. `is_cancelled`: it was cancelled before its workflow began. `timeout_s`: how long it may take.
    """

    taken: bool
    max_steps: int = 0
    model: str = ""
    ended_before: bool = False
    is_cancelled: bool = False
    timeout_s: float = 0.0


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
    HAND_OVER = "hand_over"  #: a client's own tool: the run ends, and the client runs it


@dataclass(frozen=True)
class ProposedCall:
    """A tool call the model asked for, as far as the workflow needs to know it. `only_reads`: it changes nothing."""

    tool_call_id: str
    tool: str
    act: NextAct
    timeout_s: float = 0.0
    only_reads: bool = False


@dataclass(frozen=True)
class ConfirmationRequested:
    """A confirmation that now waits for a person, until `deadline` (UTC); at `remind_at` they are reminded.

    `then` says what happens at the deadline if nobody decides, for the person who reads the timer's name.
    """

    confirmation_id: str
    deadline: datetime
    remind_at: datetime | None = None
    then: str = "reject"


@dataclass(frozen=True)
class ModelAnswer:
    """What the model said: tool calls to do, or nothing further, which means that the reply is stored.

    `is_over_budget`: the run has cost as much as it may, or its tenant has, and the model was not asked.
    `tools_used_up`: the run has made as many tool calls as it may, and the next answer is to be the last. `asked`: the
    tenant's budget has no room; a person has been asked for more, and the model is to be asked after they decided.
    """

    calls: list[ProposedCall] = field(default_factory=list)
    is_over_budget: bool = False
    tools_used_up: bool = False
    asked: ConfirmationRequested | None = None


@dataclass(frozen=True)
class CallRef:
    """Which tool call an activity works on."""

    tenant_id: str
    run_id: str
    tool_call_id: str


@dataclass(frozen=True)
class ConfirmationCheck:
    """Asks what became of a confirmation.

    `deadline_passed` and `remind`: the workflow's timer for it has fired. If nobody has decided, the confirmation is
    expired or escalated, or its people reminded. `deadline`: the one that has passed; there may be a later one by now.
    `withdraw`: the run's own time is up, and it is not asked any more.
    """

    tenant_id: str
    run_id: str
    confirmation_id: str
    deadline_passed: bool
    remind: bool = False
    withdraw: bool = False
    deadline: datetime | None = None


@dataclass(frozen=True)
class ConfirmationOutcome:
    """What became of a confirmation; `pending` when whatever woke the workflow decided nothing.

    `requested`, while it is pending: until when it waits now. `cancels_run`: it expired, and its run is to end.
    `runs_again`: a person has resolved that the call is to be run again.
    """

    status: ConfirmationStatus
    requested: ConfirmationRequested | None = None
    cancels_run: bool = False
    runs_again: bool = False


@dataclass(frozen=True)
class ToolOutcome:
    """What became of a tool call. Its result is in the ledger.

    `asked`: the outcome is unknown, and a person has been asked for it.
    """

    status: ToolCallStatus
    asked: ConfirmationRequested | None = None


class Ending(StrEnum):
    """How a run ends."""

    REPLIED = "replied"  #: the last model call's text is the reply
    OUT_OF_STEPS = "out_of_steps"  #: the model still wanted tools after `max_steps` calls
    MODELS_EXHAUSTED = "models_exhausted"  #: no model answered within the agent's patience
    UNEXPECTED_ERROR = "unexpected_error"  #: an error of ours
    CANCELLED = "cancelled"  #: stopped on request
    NOT_CONFIRMED = "not_confirmed"  #: nobody confirmed a call in time, and its policy ends the run for it
    OUT_OF_TIME = "out_of_time"  #: the run took as long as it may
    OUT_OF_BUDGET = "out_of_budget"  #: the run cost as much as it may
    HANDED_OVER = "handed_over"  #: the model called tools of the client, which it runs and goes on with


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


@dataclass(frozen=True)
class DeliveryRef:
    """What starts a `DeliveryWorkflow`, and which delivery its activity works on.

    `workflow_id`: the workflow's own, `{tenant}:{kind}:{delivery}`. A delivery that was replayed belongs to another one
    since.
    """

    tenant_id: str
    delivery_id: str
    workflow_id: str

    @property
    def kind(self) -> str:
        """How it is told."""
        return self.workflow_id.removeprefix(f"{self.tenant_id}:").partition(":")[0]


@dataclass(frozen=True)
class DeliveryOutcome:
    """How a delivery was settled: `delivered` or `failed`; None: it is not this workflow's any more."""

    status: str | None
