"""The model pool: one LiteLLM Router, asked by alias. The only place that imports litellm, which takes seconds.

One layer retries. The Router moves between deployments and on to the fallback alias, without sleeping
(`num_retries=0`: it would sleep its backoff in place, even after the last attempt); Temporal retries the step.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from holdfast.domain.errors import ModelRequestRefused, ModelsUnavailable
from holdfast.domain.messages import ChatMessage, RequestedToolCall

#: Seconds that one provider call may take, unless `router_settings.timeout` or the deployment says otherwise.
#: LiteLLM's own default is 6,000.
DEFAULT_TIMEOUT_S = 60.0

#: The 4xx that blame the moment, not the request: timeout, conflict, too early, too many.
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429})


@dataclass(frozen=True)
class Completion:
    """An answer, and what it took. `cost_usd` is None when no price is known for the model: unpriced, not free."""

    text: str
    tool_calls: tuple[RequestedToolCall, ...]
    alias: str
    model: str
    deployment: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal | None
    latency_ms: int


class ModelPool:
    """Asks models by alias. One a process: each dropped Router would leak its callbacks."""

    def __init__(
        self,
        model_list: list[dict[str, Any]],
        router_settings: dict[str, Any],
        litellm_settings: dict[str, Any],
    ) -> None:
        self._litellm = _import_litellm(litellm_settings)
        defaults = {"timeout": DEFAULT_TIMEOUT_S, "routing_strategy": "simple-shuffle"}
        self._router = self._litellm.Router(model_list=model_list, **defaults | router_settings | {"num_retries": 0})

    async def complete(
        self,
        alias: str,
        messages: Sequence[ChatMessage],
        tools: Sequence[dict[str, Any]] = (),
        *,
        use_tools: bool = True,
    ) -> Completion:
        """Ask an alias. `use_tools=False` shows the tools, since the transcript may call them, but forbids new calls.

        Raises:
            ModelsUnavailable: no deployment answered; the same again may succeed.
            ModelRequestRefused: the request itself is refused; the same again can't.
        """
        offered = {"tools": list(tools), "tool_choice": "auto" if use_tools else "none"} if tools else {}
        started = time.monotonic()
        try:
            response = await self._router.acompletion(model=alias, messages=list(messages), **offered)
        except Exception as error:  # LiteLLM raises OpenAI's errors, its own, and plain ValueErrors
            raise self._classify(alias, error) from None
        return self._completion(alias, response, round((time.monotonic() - started) * 1000))

    def _completion(self, alias: str, response: Any, latency_ms: int) -> Completion:
        if not response.choices:
            raise ModelsUnavailable(f"{alias}: the provider sent an answer without choices")
        message = response.choices[0].message
        usage = getattr(response, "usage", None)
        hidden = getattr(response, "_hidden_params", {})
        return Completion(
            text=message.content or "",
            tool_calls=tuple(_requested(call) for call in message.tool_calls or ()),
            alias=alias,
            model=str(response.model or "unknown"),
            deployment=str(hidden.get("model_id") or "unknown"),
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
            cost_usd=_cost(hidden.get("response_cost")),
            latency_ms=latency_ms,
        )

    def _classify(self, alias: str, error: Exception) -> ModelsUnavailable | ModelRequestRefused:
        # The error's text may quote the prompt, or part of a key; its type and status may not.
        status = getattr(error, "status_code", None)
        described = f"{alias}: {type(error).__name__}" + (f" (HTTP {status})" if status else "")
        if isinstance(status, int) and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
            return ModelRequestRefused(described)
        return ModelsUnavailable(described, retry_after=_retry_after(error))


def _import_litellm(settings: dict[str, Any]) -> Any:
    # Without it, the import fetches a price list from the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm  # noqa: PLC0415  2 to 3 s and 150 MB: only where models are called

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    # It logs the texts of providers' errors, which may quote a prompt or part of a key.
    for name in ("LiteLLM", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name, value in settings.items():
        setattr(litellm, name, value)
    return litellm


def _requested(call: Any) -> RequestedToolCall:
    return RequestedToolCall(tool=call.function.name or "", arguments=call.function.arguments or "{}")


def _cost(reported: float | None) -> Decimal | None:
    # LiteLLM reports 0.0 for a model whose price it does not know.
    return Decimal(str(reported)).quantize(Decimal("1e-9")) if reported else None


def _retry_after(error: Exception) -> timedelta | None:
    # The `response` that LiteLLM's errors carry is one it made up; the provider's headers stand beside it.
    headers = getattr(error, "litellm_response_headers", None) or {}
    try:
        wanted = timedelta(seconds=float(headers["retry-after"]))
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return wanted if wanted >= timedelta(0) else None
