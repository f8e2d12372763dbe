"""What a model call brought: the answer, what it took, and every provider call that was made for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from holdfast.domain.messages import RequestedToolCall


@dataclass(frozen=True)
class Attempt:
    """One call of one deployment. `failure` None: it answered. `latency_ms` is its own."""

    alias: str
    model: str
    deployment: str
    failure: str | None
    latency_ms: int

    def __str__(self) -> str:
        return f"{self.deployment}: {self.failure or 'answered'}"


@dataclass(frozen=True)
class Usage:
    """What model calls took: tokens as the provider counted them, and US dollars.

    `cost_usd` None: no price is known, which is not the same as free. `is_estimated`: the provider sent no count, so
    the tokens were counted here, with a tokenizer that may not be the model's.
    """

    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal | None = None
    is_estimated: bool = False

    @classmethod
    def total(cls, usages: "Sequence[Usage]") -> "Usage":
        """The sum. One call without a price makes the whole unpriced, one estimate an estimate; nothing costs 0."""
        costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
        return cls(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cost_usd=sum(costs, Decimal(0)) if len(costs) == len(usages) else None,
            is_estimated=any(usage.is_estimated for usage in usages),
        )


@dataclass(frozen=True)
class Completion:
    """An answer of a model.

    `alias` is what was asked for; `model` and `deployment` are what answered, which after a fallback belongs to another
    alias: the last of `attempts` says which. `finish_reason` is OpenAI's: stop, tool_calls, length, content_filter.
    `first_token_ms`, from the beginning of the first attempt, is None when the answer came whole. Times are in
    milliseconds and cover every attempt.
    """

    text: str
    tool_calls: tuple[RequestedToolCall, ...]
    finish_reason: str
    alias: str
    model: str
    deployment: str
    usage: Usage
    attempts: tuple[Attempt, ...]
    latency_ms: int
    first_token_ms: int | None = None


@dataclass(frozen=True)
class Embeddings:
    """A vector for each text, in their order, and what they took."""

    vectors: Sequence[Sequence[float]] = field(repr=False)
    alias: str
    model: str
    deployment: str
    usage: Usage
    attempts: tuple[Attempt, ...]
    latency_ms: int


@dataclass(frozen=True)
class TextDelta:
    """A piece of an answer as it streams. `attempt` counts the provider calls of this model call, from 1."""

    attempt: int
    text: str


@dataclass(frozen=True)
class TextVoid:
    """What an attempt streamed so far is void: it broke off. A later attempt, if any, begins anew."""

    attempt: int


#: What a listener to a streamed model call hears.
StreamEvent = TextDelta | TextVoid


def failures(attempts: Sequence[Attempt]) -> str | None:
    """The attempts that failed, and why, on one line; None when none did."""
    return "; ".join(str(attempt) for attempt in attempts if attempt.failure) or None


def shortest_wait(waits: Sequence[timedelta | None]) -> timedelta | None:
    """When to try again after several deployments asked for time: when the first is back.

    None, which means "as usual", when one of them named no time: it may be back at once.
    """
    named = [wait for wait in waits if wait is not None]
    return min(named) if named and len(named) == len(waits) else None
