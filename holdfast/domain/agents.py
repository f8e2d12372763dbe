"""An agent: who it is, which model it asks, what it may do."""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from holdfast.domain.hosts import AllowedHost, read_entry

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
    """What one message may take: model calls, and how long to go on trying when no model answers."""

    max_steps: int = Field(default=5, ge=1, le=50, strict=True)
    patience: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=1))] = timedelta(minutes=2)


class ConfirmationDefaults(Part):
    """What holds for a confirmation unless the tool's rule says otherwise."""

    deadline: Deadline = timedelta(minutes=10)
    on_deadline: Literal["reject"] = "reject"


class ToolRule(Part):
    """What the policy says of the tools whose name matches `pattern` (`*` and `?` as in file names)."""

    pattern: str = Field(min_length=1)
    verdict: Literal["allow", "confirm", "deny"]
    deadline: Deadline | None = None
    on_deadline: Literal["reject"] | None = None


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
    tools: tuple[ToolRule, ...] = ()
    http: HttpAccess = HttpAccess()
