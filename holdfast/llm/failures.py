"""What a provider's error means for the call: the one table of error classes.

- Elsewhere: 408, 409, 425, 429, 5xx, timeouts, connections, torn or senseless answers. The next deployment is asked,
  then the fallback alias; when all failed, Temporal tries the step again.
- Fall back: context window, content policy. The fallback alias is asked, whose models may take it; never the same one.
- Caller: bad request, and every other 4xx. Nobody else is asked and nothing is tried again.
- Operator: authentication, permission, unknown model. Likewise, and the text says what to mend. A wrong key is loud:
  were the next deployment asked instead, nobody would notice until the bill came.

A call that failed in several ways is worth another try if one of them may pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from holdfast.domain.errors import ModelError, ModelMisconfigured, ModelRequestRefused, ModelsUnavailable
from holdfast.domain.model_calls import shortest_wait


class TornStream(Exception):
    """A stream ended without a finish reason: what came of it is not an answer."""


class EmptyAnswer(Exception):
    """A provider answered with nothing in it."""


class Remedy(Enum):
    """What may help after an error."""

    ELSEWHERE = "elsewhere"  #: another deployment, or the same one later
    FALL_BACK = "fall back"  #: a model that takes more, or minds less
    CALLER = "caller"  #: a change to the request
    OPERATOR = "operator"  #: a change to models.yaml or a variable

    @property
    def ends_the_walk(self) -> bool:
        """No other deployment is asked."""
        return self in (Remedy.CALLER, Remedy.OPERATOR)


#: Errors that their status alone does not class: LiteLLM's, and the two above.
_BY_NAME = {
    "ContextWindowExceededError": (Remedy.FALL_BACK, "the conversation is longer than the model takes"),
    "ContentPolicyViolationError": (Remedy.FALL_BACK, "the provider's content policy refuses it"),
    "RouterRateLimitError": (Remedy.ELSEWHERE, "no deployment is free: all are cooling down or at their limits"),
    # A kind of APIConnectionError, and the most telling one.
    "Timeout": (Remedy.ELSEWHERE, "no answer in time"),
    # Both carry the status 500, whatever happened.
    "APIConnectionError": (Remedy.ELSEWHERE, "the connection failed"),
    "MidStreamFallbackError": (Remedy.ELSEWHERE, "the answer broke off"),
    "TornStream": (Remedy.ELSEWHERE, "the answer ended before its end"),
    "EmptyAnswer": (Remedy.ELSEWHERE, "the answer had nothing in it"),
}

_BY_STATUS = {
    400: "the provider refuses the request",
    401: "the provider refuses the key: check the deployment's api_key",
    403: "the key may not use this model: check it with the provider",
    404: "the provider does not know the model: check its name",
    422: "the provider refuses the request",
    429: "the limit of requests is reached",
}

#: The 4xx that blame the moment, not the request: timeout, conflict, too early, too many.
_MAY_PASS = frozenset({408, 409, 425, 429})

#: The 4xx that blame the deployment's configuration.
_MISCONFIGURED = frozenset({401, 403, 404})


#: What LiteLLM may turn into an error with the status 500.
_UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "ClientConnectorError"})

#: How many errors are looked at to find what began them. A chain may lead back to itself.
_LONGEST_CHAIN = 20


@dataclass(frozen=True)
class Failure:
    """Why one call failed. `reason` names causes and statuses, never what was asked, answered, or a key."""

    remedy: Remedy
    reason: str
    retry_after: timedelta | None = None


def classify(error: Exception, own_key_of: str | None = None) -> Failure:
    """Look an error up in the table. LiteLLM raises OpenAI's errors, its own, and plain ValueErrors.

    `own_key_of`: the provider that was asked with a tenant's own key.
    """
    # The error's text may quote the prompt, or part of a key; its type and status may not.
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _BY_NAME), None)
    if kind is None and getattr(error, "status_code", None) == 500 and _came_from(error) & _UNREACHABLE:
        kind = "APIConnectionError"
    if kind is not None:
        remedy, reason = _BY_NAME[kind]
        return Failure(remedy, f"{reason} ({kind})", _retry_after(error))
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return Failure(Remedy.ELSEWHERE, f"no answer that makes sense ({type(error).__name__})")
    remedy = _remedy(status)
    if own_key_of is not None and status in (401, 403):
        return Failure(remedy, f"{own_key_of} refuses the tenant's own key: set another (HTTP {status})")
    reason = _BY_STATUS.get(
        status, "the provider refuses the request" if remedy.ends_the_walk else "the provider failed"
    )
    return Failure(remedy, f"{reason} (HTTP {status})", _retry_after(error))


def _came_from(error: BaseException) -> set[str]:
    """The names of the errors that one of LiteLLM's was raised for, down to that of the attempt before."""
    names: set[str] = set()
    earlier = error.__cause__ or error.__context__
    for _ in range(_LONGEST_CHAIN):
        if earlier is None or hasattr(earlier, "llm_provider"):
            break
        names.add(type(earlier).__name__)
        earlier = earlier.__cause__ or earlier.__context__
    return names


def as_model_error(alias: str, failures: Sequence[tuple[str, Failure]]) -> ModelError:
    """What a model call as a whole failed with: each deployment that was asked, and why it did not answer."""
    detail = f"{alias}: " + "; ".join(f"{deployment}: {failure.reason}" for deployment, failure in failures)
    may_pass = [failure for _, failure in failures if failure.remedy is Remedy.ELSEWHERE]
    if not may_pass:
        misconfigured = any(failure.remedy is Remedy.OPERATOR for _, failure in failures)
        return ModelMisconfigured(detail) if misconfigured else ModelRequestRefused(detail)
    return ModelsUnavailable(detail, shortest_wait([failure.retry_after for failure in may_pass]))


def _remedy(status: int) -> Remedy:
    if status in _MISCONFIGURED:
        return Remedy.OPERATOR
    return Remedy.CALLER if 400 <= status < 500 and status not in _MAY_PASS else Remedy.ELSEWHERE


def _retry_after(error: Exception) -> timedelta | None:
    # The `response` that LiteLLM's errors carry is one it made up; the provider's headers stand beside it.
    headers = getattr(error, "litellm_response_headers", None) or {}
    try:
        wanted = timedelta(seconds=float(headers["retry-after"]))
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return wanted if wanted >= timedelta(0) else None
