"""Tools, their calls, and what a repeated call would do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar


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
    """Where a tool call stands in the effect ledger. The transitions that the database accepts are `TRANSITIONS`."""

    PROPOSED = "proposed"  #: the model asked; the policy says that a person must confirm
    AWAITING_CONFIRMATION = "awaiting_confirmation"  #: a confirmation is pending
    APPROVED = "approved"  #: by the policy or by a person; may be dispatched once
    DISPATCHED = "dispatched"  #: handed to the tool: from here on its effect may have happened
    SUCCEEDED = "succeeded"  #: the tool returned
    FAILED = "failed"  #: the tool raised, or its arguments never fitted its schema
    AMBIGUOUS = "ambiguous"  #: nobody knows whether the effect happened; a person settles it, or it stays unknown
    REJECTED = "rejected"  #: a person said no, or answered in the tool's place
    EXPIRED = "expired"  #: nobody decided in time
    WITHDRAWN = "withdrawn"  #: its run ended before it was dispatched
    DENIED = "denied"  #: the policy forbids it, or what would run is not what was approved


#: Where a call can enter the ledger: waiting, allowed, forbidden, or with arguments that don't fit.
FIRST = frozenset({ToolCallStatus.PROPOSED, ToolCallStatus.APPROVED, ToolCallStatus.DENIED, ToolCallStatus.FAILED})

TRANSITIONS: dict[ToolCallStatus, frozenset[ToolCallStatus]] = {
    ToolCallStatus.PROPOSED: frozenset({ToolCallStatus.AWAITING_CONFIRMATION, ToolCallStatus.WITHDRAWN}),
    ToolCallStatus.AWAITING_CONFIRMATION: frozenset(
        {ToolCallStatus.APPROVED, ToolCallStatus.REJECTED, ToolCallStatus.EXPIRED, ToolCallStatus.WITHDRAWN}
    ),
    # To `ambiguous`: it was to run again, on a person's word, and can't; what it did before is unknown as ever.
    ToolCallStatus.APPROVED: frozenset(
        {ToolCallStatus.DISPATCHED, ToolCallStatus.DENIED, ToolCallStatus.WITHDRAWN, ToolCallStatus.AMBIGUOUS}
    ),
    ToolCallStatus.DISPATCHED: frozenset({ToolCallStatus.SUCCEEDED, ToolCallStatus.FAILED, ToolCallStatus.AMBIGUOUS}),
    ToolCallStatus.SUCCEEDED: frozenset(),
    ToolCallStatus.FAILED: frozenset(),
    ToolCallStatus.AMBIGUOUS: frozenset({ToolCallStatus.SUCCEEDED, ToolCallStatus.FAILED, ToolCallStatus.APPROVED}),
    ToolCallStatus.REJECTED: frozenset(),
    ToolCallStatus.EXPIRED: frozenset(),
    ToolCallStatus.WITHDRAWN: frozenset(),
    ToolCallStatus.DENIED: frozenset(),
}


#: What holds where neither the tool's author nor the policy says anything else.
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_ATTEMPTS = 3

#: The most that can be declared.
MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class Declaration:
    """What a tool's author says about it; None: nothing, so that the policy of an agent may say it.

    `probe` tells, given `idempotency_key` and any of the call's arguments by name, what became of a call: False proves
    that it did not happen, None says that nobody can tell, anything else is its result.
    """

    effect: Effect | None = None
    idempotency: Idempotency | None = None
    probe: Callable[..., Any] | None = None
    confirm: Literal["always", "never"] | None = None
    timeout_s: float | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class Terms:
    """What holds for a call, after the author and the policy have spoken.

    `attempts`: how often it is run at most when it is cut at its timeout; once, unless it is repeatable.
    """

    effect: Effect
    idempotency: Idempotency
    timeout_s: float
    attempts: int

    @property
    def is_repeatable(self) -> bool:
        """Whether a call that was dispatched, and whose outcome is not known, may be run once more."""
        return self.effect is Effect.READ or self.idempotency is not Idempotency.NONE


@dataclass(frozen=True)
class Described:
    """What a policy can be checked against: what a tool's author declares, and what its parameters are called."""

    declaration: Declaration
    parameters: tuple[str, ...]


_MILDEST_FIRST = (Effect.READ, Effect.REVERSIBLE, Effect.IRREVERSIBLE)
_SAFEST_FIRST = (Idempotency.NATURAL, Idempotency.KEY, Idempotency.NONE)


def terms(declared: Declaration, ruled: Declaration, *, takes_key: bool) -> Terms:
    """The terms of a tool that its author declared, for an agent whose policy rules on it.

    The policy says what the author left open, and may tighten what he did not; it never loosens it. What nobody said
    is the safe guess: irreversible, and not repeatable unless the tool takes an idempotency key.
    """
    effects = [said for said in (declared.effect, ruled.effect) if said is not None]
    idempotencies = [said for said in (declared.idempotency, ruled.idempotency) if said is not None]
    timeouts = [said for said in (declared.timeout_s, ruled.timeout_s) if said is not None]
    attempts = [said for said in (declared.attempts, ruled.attempts) if said is not None]
    found = Terms(
        effect=max(effects or [Effect.IRREVERSIBLE], key=_MILDEST_FIRST.index),
        idempotency=max(idempotencies or [Idempotency.KEY if takes_key else Idempotency.NONE], key=_SAFEST_FIRST.index),
        timeout_s=min(timeouts or [DEFAULT_TIMEOUT_S]),
        attempts=min(attempts or [DEFAULT_ATTEMPTS]),
    )
    if found.idempotency is Idempotency.KEY and not takes_key:
        # Whoever rules so can't make the tool heed a key that it is not given.
        found = replace(found, idempotency=Idempotency.NONE)
    return found if found.is_repeatable else replace(found, attempts=1)


def loosened(declared: Declaration, ruled: Declaration) -> list[str]:
    """The names of what a policy would loosen: it asks for less than the author declared, in vain."""
    return [
        name
        for name, is_loosened in (
            ("effect", _comes_before(ruled.effect, declared.effect, _MILDEST_FIRST)),
            ("idempotency", _comes_before(ruled.idempotency, declared.idempotency, _SAFEST_FIRST)),
            ("timeout", _is_more(ruled.timeout_s, declared.timeout_s)),
            ("attempts", _is_more(ruled.attempts, declared.attempts)),
        )
        if is_loosened
    ]


def _comes_before(ruled: Any, declared: Any, order: Sequence[Any]) -> bool:
    return ruled is not None and declared is not None and order.index(ruled) < order.index(declared)


def _is_more(ruled: float | None, declared: float | None) -> bool:
    return ruled is not None and declared is not None and ruled > declared


#: The attribute under which `tool` leaves its declaration on the function.
DECLARATION_ATTRIBUTE = "__holdfast_tool__"

Function = TypeVar("Function", bound=Callable[..., Any])


def tool(
    *,
    effect: str | None = None,
    idempotency: str | None = None,
    probe: Callable[..., Any] | None = None,
    confirm: Literal["always", "never"] | None = None,
    timeout_s: float | None = None,
    attempts: int | None = None,
) -> Callable[[Function], Function]:
    """Declare what running a function does. Optional: an undeclared function counts as irreversible, not repeatable.

    An agent's policy may say what is left open here, and tighten what is not.

    Args:
        effect: `read`, `reversible` or `irreversible`.
        idempotency: `natural`, `key` or `none`; by default `key` if the function takes `idempotency_key`.
        probe: tells whether a call happened whose outcome is unknown: see `Declaration`.
        confirm: `always` has a person confirm each call, also for an agent whose policy merely allows it.
        timeout_s: seconds after which a call is cut; 60 by default.
        attempts: how often a repeatable call is run at most when it is cut; three times by default.

    Raises:
        ValueError: a word is not one of those, or a number is out of range.
    """
    if timeout_s is not None and timeout_s <= 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s!r}")
    if attempts is not None and not 1 <= attempts <= MAX_ATTEMPTS:
        raise ValueError(f"attempts must be from 1 to {MAX_ATTEMPTS}, not {attempts!r}")
    if confirm not in (None, "always", "never"):
        raise ValueError(f"confirm must be 'always' or 'never', not {confirm!r}")
    declaration = Declaration(
        effect=None if effect is None else Effect(effect),
        idempotency=None if idempotency is None else Idempotency(idempotency),
        probe=probe,
        confirm=confirm,
        timeout_s=timeout_s,
        attempts=attempts,
    )

    def declare(function: Function) -> Function:
        setattr(function, DECLARATION_ATTRIBUTE, declaration)
        return function

    return declare


@dataclass(frozen=True)
class ToolCall:
    """A tool call as the ledger holds it.

    `result` is what the model is told (JSON text); `error` says why there is none. `attempts` counts dispatches.
    `by_client`: it is of a tool of the client, which runs it after the run's end: see `holdfast.domain.client_tools`.
    """

    tool_call_id: str
    run_id: str
    step: int
    position: int
    tool: str
    arguments: dict[str, Any] | None
    arguments_digest: str | None
    status: ToolCallStatus
    terms: Terms
    attempts: int
    result: str | None
    error: str | None
    confirmation_id: str | None
    dispatched_at: datetime | None
    created_at: datetime
    by_client: bool = False
