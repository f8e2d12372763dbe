"""LiteLLM's Router, watched. It imports litellm, so import it late.

The Router chooses the deployment, and goes on to the next and to the fallback alias; that is its job. Watched, it also

- gathers a stream within the attempt that opened it. LiteLLM would hand the stream out at its first chunk, splice
  another model's text onto what broke off, and take an early end for a finished answer. Here a stream has answered when
  its finish reason came; otherwise the attempt failed, what it streamed is void, and the next deployment begins anew;
- keeps a record of each attempt: which deployment, how long, why it failed;
- ends the walk at an error that is the caller's fault, and after `MAX_CALLS` provider calls;
- cuts an attempt at its total time, which LiteLLM knows only from one byte to the next;
- asks a provider with the key of the tenant that the call is for, where the tenant has one of its own.

The methods that it overrides are not all public: litellm is pinned exactly, and `tests/unit/test_pool.py` would
notice. `docs/decisions/0004-router.md` weighs the alternatives.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx

from holdfast.domain.messages import RequestedToolCall
from holdfast.domain.model_calls import Attempt, Embeddings, StreamEvent, TextDelta, TextVoid, Usage
from holdfast.domain.storable import storable
from holdfast.llm.failures import EmptyAnswer, Failure, Remedy, TornStream, classify
from holdfast.llm.gathered import Gathered, requested
from holdfast.llm.known_models import cost, provider_of
from holdfast.llm.library import litellm

#: Provider calls for one model call, at most, whatever models.yaml says: the Router would walk on.
MAX_CALLS = 6

#: Seconds to wait for a connection, of OpenAI, Azure, Bedrock, Anthropic and Ollama. Others' clients don't tell it from
#: reading, and are left after `stream_timeout` or `timeout`.
CONNECT_TIMEOUT_S = 5.0

#: The longest name of a model that is kept, in characters: the provider says it.
_MAX_NAME = 200

#: Marks a call that is made with a tenant's own key.
_OWN_KEY = "holdfast_own_key"

#: What a provider answers to a key: not known, not paid for, not allowed this or so much of it.
_REFUSALS_OF_A_KEY = frozenset({401, 402, 403, 404, 429})

Listener = Callable[[StreamEvent], None]


@dataclass
class Watch:
    """One model call while the Router works at it.

    `provider_keys`: those of the tenant it is made for. `own_key_of`: the provider that is asked with one of them now.
    """

    alias: str
    listener: Listener | None = None
    provider_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    first_token_ms: int | None = None
    calls: int = 0
    ended_by: Exception | None = None
    chosen: dict[str, Any] | None = None
    own_key_of: str | None = None
    limit: asyncio.Timeout | None = None

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


@dataclass(frozen=True)
class Answered:
    """What one attempt brought, in our own terms."""

    text: str
    tool_calls: tuple[RequestedToolCall, ...]
    finish_reason: str
    model: str
    usage: Usage


_WATCH: ContextVar[Watch] = ContextVar("watch")


class WatchedRouter(litellm.Router):  # type: ignore[misc]  # LiteLLM's classes are untyped to us
    """The Router, with each attempt on record."""

    async def watched_completion(self, watch: Watch, **request: Any) -> Answered:
        """Ask for a completion. Raises what the Router raises; the watch has the attempts either way."""
        with _watching(watch):
            answered: Answered = await self.acompletion(model=watch.alias, stream=watch.listener is not None, **request)
        return answered

    async def watched_embedding(self, watch: Watch, texts: list[str], **request: Any) -> Embeddings:
        """Ask for embeddings, likewise."""
        with _watching(watch):
            answer = await self.aembedding(model=watch.alias, input=texts, **request)
        counted = bool(getattr(answer.usage, "total_tokens", 0))
        return Embeddings(
            vectors=[vector["embedding"] for vector in answer.data],
            alias=watch.alias,
            model=storable(str(answer.model or "unknown"), _MAX_NAME),
            deployment=watch.attempts[-1].deployment,
            usage=self._usage(watch, answer.usage, counted=counted, call_type="embedding"),
            attempts=tuple(watch.attempts),
            latency_ms=watch.elapsed_ms(),
        )

    async def _acompletion(self, model: str, messages: list[dict[str, str]], **kwargs: Any) -> Any:
        async with self._attempt(model):
            answer = await super()._acompletion(model, messages, **kwargs)
            return answer if isinstance(answer, Answered) else self._whole(_WATCH.get(), answer, messages)

    async def _aembedding(self, input: str | list[Any], model: str, **kwargs: Any) -> Any:
        async with self._attempt(model):
            return await super()._aembedding(input, model, **kwargs)

    def _update_kwargs_with_deployment(
        self, deployment: dict[str, Any], kwargs: dict[str, Any], function_name: str | None = None
    ) -> None:
        """Called with the deployment once it is chosen, before it is asked."""
        watch = _WATCH.get()
        # A walk goes on with the same arguments: the key of one provider must not reach the next.
        kwargs.pop("api_key", None)
        super()._update_kwargs_with_deployment(deployment, kwargs, function_name)
        # Only now: LiteLLM would make a deployment of its own of each key that it saw before, and keep it.
        self._use_own_key(watch, deployment, kwargs)
        silence = float(kwargs["timeout"])
        kwargs["timeout"] = httpx.Timeout(silence, connect=min(CONNECT_TIMEOUT_S, silence))
        watch.chosen = deployment
        watch.calls += 1
        if watch.limit is not None:
            total = float(deployment["litellm_params"].get("timeout") or self.timeout)
            watch.limit.reschedule(asyncio.get_running_loop().time() + total)

    def _use_own_key(self, watch: Watch, deployment: dict[str, Any], kwargs: dict[str, Any]) -> None:
        provider = provider_of(deployment) if watch.provider_keys else None
        watch.own_key_of = provider if provider in watch.provider_keys else None
        kwargs["metadata"].pop(_OWN_KEY, None)
        if watch.own_key_of is not None:
            kwargs["api_key"] = watch.provider_keys[watch.own_key_of]
            kwargs["metadata"][_OWN_KEY] = True

    def deployment_callback_on_failure(
        self, kwargs: dict[str, Any], completion_response: Any, start_time: Any, end_time: Any
    ) -> bool:
        """Has a deployment cool down; not when a provider refuses a tenant's own key: that is no one else's trouble."""
        metadata = (kwargs.get("litellm_params") or {}).get("metadata") or {}
        status = getattr(kwargs.get("exception"), "status_code", None)
        if metadata.get(_OWN_KEY) and isinstance(status, int) and status in _REFUSALS_OF_A_KEY:
            return False
        return bool(super().deployment_callback_on_failure(kwargs, completion_response, start_time, end_time))

    async def _acompletion_streaming_iterator(
        self,
        model_response: Any,
        messages: list[dict[str, str]],
        initial_kwargs: dict[str, Any],
        deployment_slot: contextlib.AsyncExitStack | None = None,
    ) -> Any:
        """Called with the open stream, inside the attempt; the slot is one of the deployment's parallel requests."""
        async with deployment_slot or contextlib.AsyncExitStack():
            try:
                return await self._gather(_WATCH.get(), model_response)
            finally:
                # Whatever ended it, a cancellation included: the provider must not go on writing, and charging.
                await model_response.aclose()

    async def _gather(self, watch: Watch, stream: Any) -> Answered:
        gathered = Gathered()
        async for chunk in stream:
            text = gathered.add(chunk)
            if text and watch.listener is not None:
                if watch.first_token_ms is None:
                    watch.first_token_ms = watch.elapsed_ms()
                watch.listener(TextDelta(watch.calls, text))
        if stream.received_finish_reason is None:
            raise TornStream
        counted = any(getattr(chunk, "usage", None) for chunk in stream.chunks)
        return Answered(
            text=gathered.text,
            tool_calls=gathered.tool_calls,
            finish_reason=stream.received_finish_reason,
            model=str(stream.model),
            usage=self._usage(watch, gathered.usage, counted=counted),
        )

    def _whole(self, watch: Watch, response: Any, messages: list[dict[str, Any]]) -> Answered:
        if not response.choices:
            raise EmptyAnswer
        choice = response.choices[0]
        usage = getattr(response, "usage", None)
        counted = bool(getattr(usage, "total_tokens", 0))
        if not counted:
            usage = litellm.Usage(
                prompt_tokens=litellm.token_counter(model=response.model or "", messages=messages),
                completion_tokens=litellm.token_counter(model=response.model or "", text=choice.message.content or " "),
            )
        return Answered(
            text=choice.message.content or "",
            tool_calls=tuple(requested(call) for call in choice.message.tool_calls or ()),
            finish_reason=choice.finish_reason or "stop",
            model=storable(str(response.model or "unknown"), _MAX_NAME),
            usage=self._usage(watch, usage, counted=counted),
        )

    def _usage(self, watch: Watch, usage: Any, *, counted: bool, call_type: str = "completion") -> Usage:
        prompt, completion = getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0
        assert watch.chosen is not None, "an answer comes from a deployment"
        return Usage(prompt, completion, cost(watch.chosen, usage, call_type=call_type), is_estimated=not counted)

    @asynccontextmanager
    async def _attempt(self, alias: str) -> AsyncIterator[None]:
        """Keep one attempt on record, and have it end in time."""
        watch = _WATCH.get()
        if watch.ended_by is not None:
            raise watch.ended_by
        watch.chosen, watch.own_key_of, before, started = None, None, watch.calls, time.monotonic()
        try:
            try:
                async with asyncio.timeout(None) as watch.limit:
                    yield
            except TimeoutError as error:
                if watch.limit is None or not watch.limit.expired():
                    raise
                raise litellm.Timeout("no answer in time", alias, "") from error
        except Exception as error:
            self._failed(watch, alias, started, error, voids=watch.calls > before)
            raise
        watch.attempts.append(_attempt_of(watch, alias, started, None))

    def _failed(self, watch: Watch, alias: str, started: float, error: Exception, *, voids: bool) -> None:
        failure = classify(error, own_key_of=watch.own_key_of)
        attempt = _attempt_of(watch, alias, started, failure.reason)
        watch.attempts.append(attempt)
        watch.failures.append((attempt.deployment, failure))
        if voids and watch.listener is not None:
            watch.listener(TextVoid(watch.calls))
        if failure.remedy.ends_the_walk or watch.calls >= MAX_CALLS:
            watch.ended_by = error
        if watch.chosen is not None and failure.remedy is Remedy.ELSEWHERE:
            self._count_failure(watch, error)

    def _count_failure(self, watch: Watch, error: Exception) -> None:
        """Have a deployment cool down for what LiteLLM doesn't count: broken connections, and what we cut or refuse."""
        ours = isinstance(error, TornStream | EmptyAnswer) or (watch.limit is not None and watch.limit.expired())
        if not ours and "APIConnectionError" not in str(error):
            return
        assert watch.chosen is not None
        about = {"model_info": watch.chosen["model_info"], "metadata": {"model_group": watch.chosen["model_name"]}}
        counted = litellm.ServiceUnavailableError("unreachable", watch.chosen["model_name"], "")
        self.deployment_callback_on_failure({"exception": counted, "litellm_params": about}, None, None, None)


@contextlib.contextmanager
def _watching(watch: Watch) -> Any:
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def _attempt_of(watch: Watch, alias: str, started: float, failure: str | None) -> Attempt:
    latency_ms = round((time.monotonic() - started) * 1000)
    if watch.chosen is None:
        return Attempt(alias, "", alias, failure, latency_ms)
    params, info = watch.chosen["litellm_params"], watch.chosen["model_info"]
    return Attempt(alias, params["model"], str(info["id"]), failure, latency_ms)
