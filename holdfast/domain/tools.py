"""Tools, their calls, and what a repeated call would do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar


class Effect(StrEnum):
    """What running a tool changes in the world."""

    READ = "read"  #: nothing: it may run again at will
    REVERSIBLE = "reversible"  #: something that can be taken back
    IRREVERSIBLE = "irreversible"  #: something that can't; the safe guess, and the default


class Idempotency(StrEnum):
    """What makes a second run of the same call harmless."""

    NATURAL = "natural"  #: running it twice is the same as once
    KEY = "key"  #: the function takes `idempotency_key`, and does a key's work once
    NONE = "none"  #: nothing does: a call whose outcome is unknown is never run again by itself


class ToolCallStatus(StrEnum):
    """Where a tool call stands in the effect ledger. The transitions that are made are `TRANSITIONS`."""

    PROPOSED = "proposed"  #: the model asked; the policy says that a person must confirm
    AWAITING_CONFIRMATION = "awaiting_confirmation"  #: a confirmation is pending
    APPROVED = "approved"  #: by the policy or by a person; may be dispatched once
    DISPATCHED = "dispatched"  #: handed to the tool: from here on its effect may have happened
    SUCCEEDED = "succeeded"  #: the tool returned
    FAILED = "failed"  #: the tool raised, or its arguments never fitted its schema
    AMBIGUOUS = "ambiguous"  #: nobody knows whether the effect happened; never run again by itself
    REJECTED = "rejected"  #: a person said no
    EXPIRED = "expired"  #: nobody decided in time
    WITHDRAWN = "withdrawn"  #: its run ended before it was dispatched
    DENIED = "denied"  #: the policy forbids it, or what would run is not what was approved


TRANSITIONS: dict[ToolCallStatus, frozenset[ToolCallStatus]] = {
    ToolCallStatus.PROPOSED: frozenset({ToolCallStatus.AWAITING_CONFIRMATION, ToolCallStatus.WITHDRAWN}),
    ToolCallStatus.AWAITING_CONFIRMATION: frozenset(
        {ToolCallStatus.APPROVED, ToolCallStatus.REJECTED, ToolCallStatus.EXPIRED, ToolCallStatus.WITHDRAWN}
    ),
    ToolCallStatus.APPROVED: frozenset({ToolCallStatus.DISPATCHED, ToolCallStatus.DENIED, ToolCallStatus.WITHDRAWN}),
    ToolCallStatus.DISPATCHED: frozenset({ToolCallStatus.SUCCEEDED, ToolCallStatus.FAILED, ToolCallStatus.AMBIGUOUS}),
    ToolCallStatus.SUCCEEDED: frozenset(),
    ToolCallStatus.FAILED: frozenset(),
    ToolCallStatus.AMBIGUOUS: frozenset(),
    ToolCallStatus.REJECTED: frozenset(),
    ToolCallStatus.EXPIRED: frozenset(),
    ToolCallStatus.WITHDRAWN: frozenset(),
    ToolCallStatus.DENIED: frozenset(),
}


@dataclass(frozen=True)
class Declaration:
    """What a tool's author says about it; `idempotency` None: `key` if it takes `idempotency_key`, else `none`."""

    effect: Effect = Effect.IRREVERSIBLE
    idempotency: Idempotency | None = None
    timeout_s: float = 60.0


#: The attribute under which `tool` leaves its declaration on the function.
DECLARATION_ATTRIBUTE = "__holdfast_tool__"

Function = TypeVar("Function", bound=Callable[..., Any])


def tool(
    *, effect: str = Effect.IRREVERSIBLE, idempotency: str | None = None, timeout_s: float = 60.0
) -> Callable[[Function], Function]:
    """Declare what running a function does. Optional: an undeclared function counts as irreversible, not repeatable.

    Args:
        effect: `read`, `reversible` or `irreversible`.
        idempotency: `natural`, `key` or `none`; by default `key` if the function takes `idempotency_key`.
        timeout_s: seconds after which a call is cut.

    Raises:
        ValueError: a word is not one of those, or the timeout is not positive.
    """
    if timeout_s <= 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s!r}")
    declaration = Declaration(
        effect=Effect(effect),
        idempotency=None if idempotency is None else Idempotency(idempotency),
        timeout_s=timeout_s,
    )

    def declare(function: Function) -> Function:
        setattr(function, DECLARATION_ATTRIBUTE, declaration)
        return function

    return declare


@dataclass(frozen=True)
class ToolCall:
    """A tool call as the ledger holds it.

    `result` is what the model is told (JSON text); `error` says why there is none. `attempts` counts dispatches.
    """

    tool_call_id: str
    run_id: str
    step: int
    position: int
    tool: str
    arguments: dict[str, Any] | None
    arguments_digest: str | None
    status: ToolCallStatus
    effect: Effect
    idempotency: Idempotency
    attempts: int
    result: str | None
    error: str | None
    confirmation_id: str | None
    created_at: datetime


def may_run_again(effect: Effect, idempotency: Idempotency) -> bool:
    """Whether a call that was dispatched, and whose outcome is not known, may be run once more."""
    return effect is Effect.READ or idempotency is not Idempotency.NONE
