"""The model pool: one LiteLLM Router, asked by alias.

One layer retries. The Router moves between deployments and on to the fallback alias, without sleeping
(`num_retries=0`: it would sleep its backoff in place, even after the last attempt); Temporal retries the step.
At worst, one model call is `holdfast.llm.router.MAX_CALLS` provider calls.
"""

import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from holdfast.domain.errors import ModelError, ModelRequestRefused
from holdfast.domain.messages import ChatMessage
from holdfast.domain.model_calls import Completion, Embeddings, StreamEvent, failures
from holdfast.llm.failures import as_model_error, classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.llm.router import Answered, Watch

#: Seconds that one provider call may take in all, unless `timeout` says otherwise, for all or for a deployment.
#: LiteLLM's own default is 6,000.
DEFAULT_TIMEOUT_S = 120.0

#: Seconds that a stream may be silent, unless `stream_timeout` says otherwise.
DEFAULT_STREAM_TIMEOUT_S = 30.0

#: How a model gets a price that LiteLLM's list does not have.
SET_A_PRICE = "its calls are unpriced; set input_cost_per_token and output_cost_per_token under its model_info"

#: What a deployment is asked when the question is only whether it answers.
_PROBE = "Say the word pong, and nothing else."

log = logging.getLogger(__name__)


class ModelPool:
    """Asks models by alias. One a process: each dropped Router would leak its callbacks. Imports litellm when made."""

    def __init__(
        self,
        model_list: list[dict[str, Any]],
        router_settings: dict[str, Any],
        litellm_settings: dict[str, Any],
    ) -> None:
        from holdfast.llm import known_models, library, router, worst_cases  # noqa: PLC0415  they import litellm

        for name, value in litellm_settings.items():
            setattr(library.litellm, name, value)
        self.aliases = tuple(dict.fromkeys(str(one["model_name"]) for one in model_list))
        self._vector_makers = {str(one["model_info"]["id"]) for one in model_list if known_models.makes_vectors(one)}
        self._worst_cases = worst_cases.WorstCases(model_list, router_settings)
        self._new_watch = router.Watch
        self._router = router.WatchedRouter(model_list=model_list, **_settings(model_list, router_settings))
        self.unpriced = tuple(
            sorted({str(one["litellm_params"]["model"]) for one in model_list if not known_models.is_priced(one)})
        )

    async def complete(
        self,
        alias: str,
        messages: Sequence[ChatMessage],
        tools: Sequence[dict[str, Any]] = (),
        *,
        use_tools: bool = True,
        listener: "Callable[[StreamEvent], None] | None" = None,
        provider_keys: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> Completion:
        """Ask an alias.

        Args:
            alias: the `model_name` of models.yaml.
            messages: the conversation, in OpenAI's chat form.
            tools: what the model may call, in OpenAI's function form.
            use_tools: False shows the tools, since the transcript may call them, but forbids new calls.
            listener: hears the answer as it streams; without one, the answer comes whole.
            provider_keys: by provider, in place of the deployments' own.
            options: passed to the provider, such as `temperature` and `max_tokens`.

        Raises:
            ModelsUnavailable: no deployment answered; the same again may succeed.
            ModelRequestRefused: the request itself is refused; the same again can't.
        """
        offered = {"tools": list(tools), "tool_choice": "auto" if use_tools else "none"} if tools else {}
        streamed = {} if listener is None else {"stream_options": {"include_usage": True}}
        watch = self._watch(alias, provider_keys, listener)
        try:
            answered = await self._router.watched_completion(
                watch, messages=list(messages), **offered, **streamed, **options
            )
        except Exception as error:
            raise _model_error(watch, error) from None
        _log_fallback(watch)
        return _completion(watch, answered)

    async def embed(
        self,
        alias: str,
        texts: Sequence[str],
        *,
        provider_keys: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> Embeddings:
        """A vector for each text.

        Raises:
            ModelsUnavailable: no deployment answered; the same again may succeed.
            ModelRequestRefused: the request itself is refused; the same again can't.
        """
        watch = self._watch(alias, provider_keys)
        try:
            embeddings = await self._router.watched_embedding(watch, list(texts), **options)
        except Exception as error:
            raise _model_error(watch, error) from None
        _log_fallback(watch)
        return embeddings

    def worst_case(self, alias: str, content: Sequence[Any], max_tokens: int | None = None) -> Decimal:
        """The most that a call can cost, in US dollars, as far as prices are known.

        Args:
            alias: whom it asks.
            content: its messages and tools, or its texts.
            max_tokens: how much may be written, if the call itself says.
        """
        return self._worst_cases.of(alias, content, max_tokens)

    async def probe(self, deployment: str) -> Completion | Embeddings:
        """Ask one deployment, by its name, for next to nothing: does it answer?

        Raises:
            ModelError: it does not; the text says why.
        """
        watch = self._new_watch(deployment)
        only = {"disable_fallbacks": True}
        try:
            if deployment in self._vector_makers:
                return await self._router.watched_embedding(watch, [_PROBE], **only)
            answered = await self._router.watched_completion(
                watch, messages=[{"role": "user", "content": _PROBE}], **only
            )
        except Exception as error:
            raise _model_error(watch, error) from None
        return _completion(watch, answered)

    def _watch(
        self,
        alias: str,
        provider_keys: Mapping[str, str],
        listener: "Callable[[StreamEvent], None] | None" = None,
    ) -> "Watch":
        if alias not in self.aliases:
            raise ModelRequestRefused(f"There is no alias {alias!r}; known are {', '.join(self.aliases)}.")
        return self._new_watch(alias, listener, provider_keys)


def _settings(model_list: list[dict[str, Any]], router_settings: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "timeout": DEFAULT_TIMEOUT_S,
        "stream_timeout": DEFAULT_STREAM_TIMEOUT_S,
        "routing_strategy": "simple-shuffle",
    }
    limited = any(one["litellm_params"].keys() & {"rpm", "tpm"} for one in model_list)
    # By itself, simple-shuffle takes rpm and tpm for weights.
    enforced = {"optional_pre_call_checks": ["enforce_model_rate_limits"]} if limited else {}
    return defaults | enforced | router_settings | {"num_retries": 0}


def _completion(watch: "Watch", answered: "Answered") -> Completion:
    return Completion(
        text=answered.text,
        tool_calls=answered.tool_calls,
        finish_reason=answered.finish_reason,
        alias=watch.alias,
        model=answered.model,
        deployment=watch.attempts[-1].deployment,
        usage=answered.usage,
        attempts=tuple(watch.attempts),
        latency_ms=watch.elapsed_ms(),
        first_token_ms=watch.first_token_ms,
    )


def _log_fallback(watch: "Watch") -> None:
    # A deployment that never answers, and whose work another does, is found in the log before it is found in the bill.
    if watch.failures:
        log.warning("%s: %s answered, since %s", watch.alias, watch.attempts[-1].deployment, failures(watch.attempts))


def _model_error(watch: "Watch", error: Exception) -> ModelError:
    # Without an attempt, the Router failed before it chose a deployment.
    failed = as_model_error(watch.alias, watch.failures or [(watch.alias, classify(error))])
    log.warning("no model answered: %s", failed)
    return failed
