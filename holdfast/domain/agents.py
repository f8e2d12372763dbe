"""An agent: who it is, which model it asks, what it may do."""

import re
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from holdfast.domain.hosts import AllowedHost, read_entry
from holdfast.domain.tools import MAX_ATTEMPTS, Declaration, Effect, Idempotency

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(value: Any) -> Any:
    """`10m`, `24h`, `90s`, `1h30m` as a timedelta; anything else is left to pydantic.

    Raises:
        ValueError: the text looks like neither that nor ISO 8601, is too long a time, or is a number without a unit.
    """
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit; write it like 90s, 10m, 24h or 1h30m")
    if not isinstance(value, str) or value.startswith("P"):
        return value
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"{value!r} is not a duration; write it like 90s, 10m, 24h or 1h30m")
    try:
        return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    except OverflowError as error:
        raise ValueError(f"{value!r} is longer than any duration can be") from error


def _no_float(value: Any) -> Any:
    # 0.1 would become 0.1000000000000000055: YAML's own reading of it is what was meant.
    return str(value) if isinstance(value, float) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]

#: A year: beyond it nobody waits, and calendars end.
Deadline = Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=366))]


class Part(BaseModel):
    """Base of the parts of an agent: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(Part):
    """The name the agent answers to, and its role."""

    name: str = Field(min_length=1)
    role: str = Field(min_length=1)


class Limits(Part):
    """What one message may take. `patience`: how long to go on trying when no model answers.

    `run_timeout` counts from the moment the run has the conversation's turn, and is looked at between two steps and
    while a person is waited for. `max_cost_usd` is looked at before each model call, so the last one may go over it.
    """

    max_steps: int = Field(default=5, ge=1, le=50, strict=True)
    max_tool_calls: int = Field(default=50, ge=1, le=1000, strict=True)
    max_cost_usd: Annotated[Decimal, BeforeValidator(_no_float)] | None = Field(default=None, gt=0)
    run_timeout: Deadline = timedelta(hours=24)
    patience: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=1))] = timedelta(minutes=2)


#: A role that an API key may carry, such as `billing`.
RoleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

OnDeadline = Literal["reject", "cancel_run", "escalate"]


class Escalation(Part):
    """Whom else to ask when nobody has decided by the deadline, for how long, and what happens after that."""

    to: tuple[RoleName, ...] = Field(min_length=1)
    deadline: Deadline
    on_deadline: Literal["reject", "cancel_run"] = "reject"


class ConfirmationDefaults(Part):
    """What holds for a confirmation unless the tool's rule says otherwise. `approvers`: roles; none means anybody's.

    `on_message` says what a new message of the conversation does to a confirmation that is pending: `keep` lets it
    wait, `withdraw` takes the call back.
    """

    deadline: Deadline = timedelta(minutes=10)
    on_deadline: OnDeadline = "reject"
    remind_after: Deadline | None = None
    escalate: Escalation | None = None
    approvers: tuple[RoleName, ...] = ()
    four_eyes: bool = False
    on_message: Literal["keep", "withdraw"] = "keep"


class ToolRule(Part):
    """What the policy says of the tools whose name matches `pattern` (`*` and `?` as in file names).

    `when`, with the verdict confirm, is an expression over the arguments: only where it is true is a person asked.
    `is_explicit` marks a rule that says in so many words that nobody is asked: only such a one overrules an author who
    declared that somebody is. The other fields, where they are given, go before the agent's defaults, and tighten what
    the tool's author declared.
    """

    pattern: str = Field(min_length=1)
    verdict: Literal["allow", "confirm", "deny"]
    when: str | None = None
    is_explicit: bool = False
    deadline: Deadline | None = None
    on_deadline: OnDeadline | None = None
    remind_after: Deadline | None = None
    escalate: Escalation | None = None
    approvers: tuple[RoleName, ...] | None = None
    four_eyes: bool | None = None
    effect: Effect | None = None
    idempotency: Idempotency | None = None
    timeout: Deadline | None = None
    attempts: int | None = Field(default=None, ge=1, le=MAX_ATTEMPTS, strict=True)

    @property
    def declaration(self) -> Declaration:
        """What the rule declares of a tool."""
        return Declaration(
            effect=self.effect,
            idempotency=self.idempotency,
            timeout_s=None if self.timeout is None else self.timeout.total_seconds(),
            attempts=self.attempts,
        )


class OnBusy(StrEnum):
    """What a new message does to a conversation whose turn is taken."""

    QUEUE = "queue"  #: it waits for its turn
    STEER = "steer"  #: it joins the running turn before its next model call
    INTERRUPT = "interrupt"  #: the running turn is stopped, and it runs next
    REJECT = "reject"  #: it is refused, and nothing is stored


def _host_entry(entry: str) -> str:
    read_entry(entry)
    return entry


class HttpAccess(Part):
    """The hosts that the tool `http_request` may ask. How they are written: `holdfast.domain.hosts`."""

    allow: tuple[Annotated[str, AfterValidator(_host_entry)], ...] = ()

    @property
    def hosts(self) -> tuple[AllowedHost, ...]:
        """The entries, read."""
        return tuple(read_entry(entry) for entry in self.allow)


class AgentSpec(Part):
    """An agent, whole: what `agents.yaml` says of it, with defaults filled in and prompt files read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    model: str = Field(min_length=1)
    identity: Identity | None = None
    persona: str = ""
    system_prompt: str = ""
    limits: Limits = Limits()
    confirmation: ConfirmationDefaults = ConfirmationDefaults()
    on_busy: OnBusy = OnBusy.QUEUE
    tools: tuple[ToolRule, ...] = ()
    http: HttpAccess = HttpAccess()

    @model_validator(mode="after")
    def _asks_people_in_a_way_that_makes_sense(self) -> Self:
        for rule in self.tools:
            asking = self.asking(rule)
            if asking.on_deadline == "escalate" and (asking.escalate is None or not asking.approvers):
                raise ValueError(f"{rule.pattern}: on_deadline 'escalate' needs approvers, and whom to escalate to")
            if asking.escalate is not None and asking.on_deadline != "escalate":
                raise ValueError(f"{rule.pattern}: escalate does nothing where on_deadline is not 'escalate'")
            longest = asking.deadline + (asking.escalate.deadline if asking.escalate else timedelta(0))
            if rule.verdict == "confirm" and longest > self.limits.run_timeout:
                raise ValueError(f"{rule.pattern}: run_timeout ends the run before the deadline; make it longer")
            if asking.remind_after is not None and asking.remind_after >= asking.deadline:
                raise ValueError(f"{rule.pattern}: remind_after comes after the deadline; make it shorter")
        return self

    def asking(self, rule: ToolRule) -> ConfirmationDefaults:
        """How a person is asked by a rule of this agent: as the rule says, and else as the agent's defaults do."""
        names = ConfirmationDefaults.model_fields.keys() & ToolRule.model_fields.keys()
        own = {name: value for name in names if (value := getattr(rule, name)) is not None}
        if own.get("on_deadline", "escalate") != "escalate":
            own.setdefault("escalate", None)
        return self.confirmation.model_copy(update=own)
