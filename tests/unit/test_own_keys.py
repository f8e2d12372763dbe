"""Tenants' own keys of providers: each call carries its tenant's, and none goes to another provider."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from holdfast.domain.errors import ModelMisconfigured
from holdfast.llm.pool import ModelPool
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import HttpError, Text
from tests.harness.listening import Heard

pytestmark = pytest.mark.usefixtures("no_other_pool")

OURS = {"openai": "sk-ours-openai", "anthropic": "sk-ours-anthropic"}


def deployment(alias: str, model: str, api_base: str, provider: str | None, **params: Any) -> dict[str, Any]:
    key = OURS["anthropic" if model.startswith("anthropic/") else "openai"]
    return {
        "model_name": alias,
        "litellm_params": {"model": model, "api_base": api_base, "api_key": key, **params},
        "model_info": {"id": f"{alias}-{model}"} | ({} if provider is None else {"provider": provider}),
    }


def pool(provider: ScriptedProvider, **settings: Any) -> ModelPool:
    """`quality` is OpenAI's and falls back to Anthropic's `fast`; `elsewhere` only speaks as OpenAI does."""
    deployments = [
        deployment("quality", "openai/quality", provider.url, "openai"),
        deployment("fast", "anthropic/fast", provider.root, "anthropic"),
        deployment("vectors", "openai/vectors", provider.url, "openai"),
        deployment("elsewhere", "openai/elsewhere", provider.url, None),
    ]
    return ModelPool(deployments, {"fallbacks": [{"quality": ["fast"]}], **settings}, {})


async def ask(asked: ModelPool, text: str = "hello", alias: str = "quality", **options: Any) -> str:
    return (await asked.complete(alias, [{"role": "user", "content": text}], **options)).text


def keys_of(provider: ScriptedProvider) -> list[str]:
    return [request.key for request in provider.requests]


async def test_a_call_is_made_with_the_tenants_key_and_the_next_without_one_is_not(provider: ScriptedProvider) -> None:
    one = pool(provider)
    await ask(one, provider_keys={"openai": "sk-of-a"})
    await ask(one)
    await ask(one, provider_keys={"openai": "sk-of-b"}, listener=Heard())
    await ask(one, provider_keys={"anthropic": "sk-of-c"})
    assert keys_of(provider) == ["sk-of-a", OURS["openai"], "sk-of-b", OURS["openai"]]


async def test_vectors_are_made_with_the_tenants_key_too(provider: ScriptedProvider) -> None:
    one = pool(provider)
    await one.embed("vectors", ["a"], provider_keys={"openai": "sk-of-a"})
    await one.embed("vectors", ["a"])
    assert keys_of(provider) == ["sk-of-a", OURS["openai"]]


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        ({"openai": "sk-of-a"}, ["sk-of-a", OURS["anthropic"]]),
        ({"openai": "sk-of-a", "anthropic": "sk-ant-a"}, ["sk-of-a", "sk-ant-a"]),
        ({"anthropic": "sk-ant-a"}, [OURS["openai"], "sk-ant-a"]),
    ],
)
async def test_a_fallback_to_another_provider_takes_no_key_along(
    provider: ScriptedProvider, keys: dict[str, str], sent: list[str]
) -> None:
    provider.script(HttpError(500))
    await ask(pool(provider), provider_keys=keys)
    assert [request.wire for request in provider.requests] == ["openai", "anthropic"]
    assert keys_of(provider) == sent


async def test_a_server_that_only_speaks_as_openai_does_gets_nobodys_key(provider: ScriptedProvider) -> None:
    await ask(pool(provider), alias="elsewhere", provider_keys={"openai": "sk-of-a"})
    assert keys_of(provider) == [OURS["openai"]]


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_key_that_is_refused_is_its_tenants_trouble_alone(provider: ScriptedProvider, status: int) -> None:
    # A lone deployment is never cooled down, so there are two; one cooled down would not be asked for a minute.
    one = ModelPool(
        [
            deployment("quality", "openai/first", provider.url, "openai", order=1),
            deployment("quality", "openai/second", provider.url, "openai", order=2),
        ],
        {"allowed_fails": 0},
        {},
    )
    for _ in range(3):
        provider.script(HttpError(status, "Incorrect API key provided: sk-wrong", {"retry-after": "60"}))
        if status == 429:
            await ask(one, provider_keys={"openai": "sk-wrong"})
        else:
            with pytest.raises(ModelMisconfigured, match=f"openai refuses the tenant's own key.*HTTP {status}"):
                await ask(one, provider_keys={"openai": "sk-wrong"})
    provider.requests.clear()

    await ask(one)
    assert [(request.model, request.key) for request in provider.requests] == [("first", OURS["openai"])]


async def test_a_deployment_whose_own_key_is_refused_cools_down_as_before(provider: ScriptedProvider) -> None:
    # The test above can fail.
    one = ModelPool(
        [
            deployment("quality", "openai/first", provider.url, "openai", order=1),
            deployment("quality", "openai/second", provider.url, "openai", order=2),
        ],
        {"allowed_fails": 0},
        {},
    )
    provider.script(HttpError(429, "too many", {"retry-after": "60"}))
    await ask(one)
    provider.requests.clear()
    await ask(one)
    assert [request.model for request in provider.requests] == ["second"]


async def test_a_hundred_calls_at_once_are_never_mixed_up(provider: ScriptedProvider) -> None:
    one = pool(provider)
    provider.default = lambda request: Text(request.key)
    tenants = [("a", {"openai": "sk-of-a"}), ("b", {"openai": "sk-of-b"}), ("c", {})]
    asked = [tenant for tenant in tenants for _ in range(50)]
    random.Random(1).shuffle(asked)

    async def call(number: int, name: str, keys: dict[str, str]) -> tuple[str, str]:
        listener = Heard() if number % 2 else None
        return name, await ask(one, f"{name} {number}", provider_keys=keys, listener=listener)

    answered = await asyncio.gather(*(call(number, *tenant) for number, tenant in enumerate(asked)))

    assert Counter(answered) == {("a", "sk-of-a"): 50, ("b", "sk-of-b"): 50, ("c", OURS["openai"]): 50}
    sent = Counter((request.last_text[0], request.key) for request in provider.requests)
    assert sent == {("a", "sk-of-a"): 50, ("b", "sk-of-b"): 50, ("c", OURS["openai"]): 50}


async def test_keys_leave_nothing_behind_in_the_router(provider: ScriptedProvider) -> None:
    one = pool(provider)
    for number in range(5):
        await ask(one, provider_keys={"openai": f"sk-of-{number}"})
    assert len(one._router.get_model_list() or []) == 4
