"""The model pool, through the real Router, against a provider that does as it is told over real HTTP.

The number of calls that reach the provider is known exactly: one layer retries, and it is not this one.
"""

import json
import traceback
from datetime import timedelta
from typing import Any

import pytest

from holdfast.domain.errors import ModelError, ModelRequestRefused, ModelsUnavailable
from holdfast.domain.messages import RequestedToolCall
from holdfast.domain.model_calls import Completion
from holdfast.llm.pool import ModelPool
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Cut, EmptyChoices, Garbage, Hang, HttpError, Reply, Text, ToolCalls
from tests.harness.listening import Heard

pytestmark = pytest.mark.usefixtures("no_other_pool")

KEY = "sk-do-not-show"
PROMPT = "a prompt that nobody else may read"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}

UNAVAILABLE: list[Reply] = [
    HttpError(500, f"{PROMPT} {KEY}"),
    HttpError(503, f"{PROMPT} {KEY}"),
    HttpError(429, f"{PROMPT} {KEY}"),
    HttpError(408, f"{PROMPT} {KEY}"),
    Hang(),
    Cut(PROMPT),
    Garbage(f"<html>{PROMPT} {KEY}</html>".encode()),
    EmptyChoices(),
]
REFUSED: list[Reply] = [HttpError(status, f"{PROMPT} {KEY}") for status in (400, 401, 403, 404, 422)]


def pool(provider: ScriptedProvider, *, hasty: bool = False, **router_settings: Any) -> ModelPool:
    """A pool as new: a deployment that failed in one test cools down in no other. `hasty`: quality has a second."""
    times = {"timeout": 1, "stream_timeout": 1} if hasty else {}
    deployments = [
        {
            "model_name": alias,
            "litellm_params": {"model": f"openai/{alias}-model", "api_base": provider.url, "api_key": KEY, **extra},
        }
        for alias, extra in (("quality", times), ("fast", {}))
    ]
    return ModelPool(deployments, router_settings, {})


def shipped_pool(provider: ScriptedProvider) -> ModelPool:
    """A pool in the shape of the shipped models.yaml: three in order, falling back to an alias of two."""
    models = {"quality": [("first", 1), ("second", 2), ("third", 3)], "fast": [("small", 1), ("smaller", 2)]}
    deployments = [
        {
            "model_name": alias,
            "litellm_params": {"model": f"openai/{model}", "api_base": provider.url, "api_key": KEY, "order": order},
        }
        for alias, in_order in models.items()
        for model, order in in_order
    ]
    return ModelPool(deployments, {"fallbacks": [{"quality": ["fast"]}]}, {})


async def ask(asked: ModelPool, alias: str = "quality", **options: Any) -> Completion:
    return await asked.complete(alias, [{"role": "user", "content": PROMPT}], **options)


async def failure(asked: ModelPool, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await ask(asked, **options)
    shown = "".join(traceback.format_exception(raised.value))
    assert PROMPT not in shown
    assert KEY not in shown
    return raised.value


def models_asked(provider: ScriptedProvider) -> list[str]:
    return [request.model for request in provider.requests]


async def test_a_text_comes_with_what_it_took(provider: ScriptedProvider) -> None:
    provider.script(Text("four words it says"))
    answer = await ask(pool(provider))
    assert (answer.text, answer.tool_calls) == ("four words it says", ())
    assert (answer.alias, answer.model) == ("quality", "quality-model")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        len(str(provider.requests[0].body["messages"])) // 4,
        4,
    )
    assert answer.deployment != "unknown"
    assert answer.latency_ms >= 0
    assert models_asked(provider) == ["quality-model"]


async def test_a_model_whose_price_is_not_known_is_unpriced_and_not_free(provider: ScriptedProvider) -> None:
    assert (await ask(pool(provider))).usage.cost_usd is None


async def test_the_answer_names_the_deployment_that_gave_it(provider: ScriptedProvider) -> None:
    one = pool(provider)
    quality, fast, again = await ask(one, "quality"), await ask(one, "fast"), await ask(one, "quality")
    assert quality.deployment == again.deployment != fast.deployment


async def test_tool_calls_keep_their_order_and_their_raw_arguments(provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"b": 1, "a": 2}), ("look_up", '{"broken'), ("look_up", "")], "Wait."))
    answer = await ask(pool(provider), tools=[TOOL])
    assert answer.text == "Wait."
    assert answer.tool_calls == (
        RequestedToolCall("look_up", '{"b": 1, "a": 2}'),
        RequestedToolCall("look_up", '{"broken'),
        RequestedToolCall("look_up", "{}"),
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_arguments_may_come_as_an_object(provider: ScriptedProvider, streamed: bool) -> None:
    provider.script(ToolCalls([("look_up", {"a": {"b": "ä"}}), ("look_up", {})], as_objects=True))
    answer = await ask(pool(provider), tools=[TOOL], listener=Heard() if streamed else None)
    assert [json.loads(call.arguments) for call in answer.tool_calls] == [{"a": {"b": "ä"}}, {}]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ids", [[None, None], ["same", "same"]])
async def test_a_provider_may_give_no_ids_or_the_same_one_twice(
    provider: ScriptedProvider, ids: list[str | None], streamed: bool
) -> None:
    provider.script(ToolCalls([("look_up", {"a": 1}), ("look_up", {"a": 2})], ids=ids))
    answer = await ask(pool(provider), tools=[TOOL], listener=Heard() if streamed else None)
    assert [json.loads(call.arguments) for call in answer.tool_calls] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(("use_tools", "choice"), [(True, "auto"), (False, "none")])
async def test_tools_are_shown_and_may_be_forbidden(provider: ScriptedProvider, use_tools: bool, choice: str) -> None:
    await ask(pool(provider), tools=[TOOL], use_tools=use_tools)
    body = provider.requests[0].body
    assert (body["tools"], body["tool_choice"]) == ([TOOL], choice)


async def test_no_tools_are_mentioned_where_there_are_none(provider: ScriptedProvider) -> None:
    await ask(pool(provider))
    assert not {"tools", "tool_choice"} & provider.requests[0].body.keys()


@pytest.mark.parametrize("reply", UNAVAILABLE, ids=lambda reply: str(reply)[:20])
async def test_what_may_pass_is_worth_another_try_which_is_not_made_here(
    provider: ScriptedProvider, reply: Reply
) -> None:
    provider.script(reply)
    one = pool(provider, hasty=isinstance(reply, Hang))
    error = await failure(one)
    assert isinstance(error, ModelsUnavailable)
    assert str(error).startswith("quality: ")
    assert provider.calls == 1
    # The provider is back, and is asked again at once: no deployment that stands alone cools down.
    assert (await ask(one)).text == f"You said: {PROMPT}"
    assert provider.calls == 2


@pytest.mark.parametrize("reply", REFUSED, ids=lambda reply: str(reply)[:21])
async def test_what_the_provider_refuses_is_not_worth_another_try(provider: ScriptedProvider, reply: Reply) -> None:
    provider.script(reply)
    assert isinstance(await failure(pool(provider)), ModelRequestRefused)
    assert provider.calls == 1


async def test_no_retries_are_hidden_in_the_settings(provider: ScriptedProvider) -> None:
    provider.script(HttpError(500), HttpError(500))
    await failure(pool(provider, num_retries=3))
    assert provider.calls == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_that_asks_for_time_is_heard(provider: ScriptedProvider, status: int) -> None:
    provider.script(HttpError(status, headers={"retry-after": "7"}))
    error = await failure(pool(provider))
    assert isinstance(error, ModelsUnavailable)
    assert error.retry_after == timedelta(seconds=7)
    assert provider.calls == 1


@pytest.mark.parametrize("wish", ["-7", "1e300", "inf", "nan", "soon", "", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_a_wish_that_makes_no_sense_is_no_wish(provider: ScriptedProvider, wish: str) -> None:
    provider.script(HttpError(429, headers={"retry-after": wish}))
    error = await failure(pool(provider))
    assert isinstance(error, ModelsUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reply", UNAVAILABLE, ids=lambda reply: str(reply)[:21])
async def test_the_fallback_answers_when_the_first_fails(
    provider: ScriptedProvider, reply: Reply, streamed: bool
) -> None:
    provider.script(reply, Text("the other one"))
    one = pool(provider, hasty=isinstance(reply, Hang), fallbacks=[{"quality": ["fast"]}])
    answer = await ask(one, listener=Heard() if streamed else None)
    assert (answer.text, answer.alias, answer.model) == ("the other one", "quality", "fast-model")
    assert models_asked(provider) == ["quality-model", "fast-model"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reply", REFUSED, ids=lambda reply: str(reply)[:21])
async def test_what_the_caller_must_mend_is_not_tried_elsewhere(
    provider: ScriptedProvider, reply: Reply, streamed: bool
) -> None:
    provider.script(reply, Text("the other one"))
    one = pool(provider, fallbacks=[{"quality": ["fast"]}])
    assert isinstance(await failure(one, listener=Heard() if streamed else None), ModelRequestRefused)
    assert models_asked(provider) == ["quality-model"]


async def test_when_the_fallback_fails_too_each_was_asked_once(provider: ScriptedProvider) -> None:
    provider.script(HttpError(500, f"{PROMPT} {KEY}"), HttpError(401, f"{PROMPT} {KEY}"))
    assert isinstance(await failure(pool(provider, fallbacks=[{"quality": ["fast"]}])), ModelsUnavailable)
    assert models_asked(provider) == ["quality-model", "fast-model"]


async def test_an_alias_that_does_not_exist_is_refused_without_asking_anybody(provider: ScriptedProvider) -> None:
    with pytest.raises(ModelRequestRefused, match="There is no alias 'quailty'; known are quality, fast"):
        await ask(pool(provider), "quailty")
    assert provider.calls == 0


@pytest.mark.parametrize("failing", range(5))
async def test_deployments_are_asked_in_order_and_then_the_fallback(provider: ScriptedProvider, failing: int) -> None:
    provider.script(*[HttpError(500)] * failing)
    answer = await ask(shipped_pool(provider))

    in_order = ["first", "second", "third", "small", "smaller"]
    assert models_asked(provider) == in_order[: failing + 1]
    assert answer.model == in_order[failing]


async def test_when_everything_fails_each_deployment_was_asked_once(provider: ScriptedProvider) -> None:
    provider.default = lambda _: HttpError(500)
    assert isinstance(await failure(shipped_pool(provider)), ModelsUnavailable)

    assert models_asked(provider) == ["first", "second", "third", "small", "smaller"]
