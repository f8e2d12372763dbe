"""What a model call can cost at most is never less than what it costs."""

import logging
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.messages import ChatMessage
from holdfast.llm.library import litellm
from holdfast.llm.pool import ModelPool
from holdfast.llm.worst_cases import DEFAULT_MAX_OUTPUT_TOKENS, WorstCases
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text
from tests.unit.builders import texts
from tests.unit.test_pool_limits import ask, deployment, priced

HELLO: list[ChatMessage] = [{"role": "user", "content": "hello"}]


def one(name: str = "m", alias: str = "quality", model: str = "openai/m", **params: Any) -> dict[str, Any]:
    """A deployment that is asked nothing."""
    info = {"id": name, **params.pop("model_info", {})}
    return {"model_name": alias, "litellm_params": {"model": model, **params}, "model_info": info}


def output_only(tokens_usd: float, **params: Any) -> dict[str, Any]:
    """A deployment whose prompts are free, so that the worst case says how much it may write."""
    return one(**params, model_info={"input_cost_per_token": 0, "output_cost_per_token": tokens_usd})


@pytest.mark.parametrize(
    ("params", "max_tokens", "written"),
    [
        ({}, None, DEFAULT_MAX_OUTPUT_TOKENS),
        ({"max_tokens": 50}, None, 50),
        ({"max_completion_tokens": 60}, None, 60),
        ({"max_tokens": 50}, 70, 70),
        ({"model": "openai/gpt-4o-mini"}, None, 16_384),
        ({"model": "anthropic/claude-sonnet-4-5"}, None, 64_000),
    ],
)
def test_as_much_is_written_as_may_be(params: dict[str, Any], max_tokens: int | None, written: int) -> None:
    assert WorstCases([output_only(0.001, **params)], {}).of("quality", HELLO, max_tokens) == Decimal(written) / 1000


def test_long_prompts_and_kept_ones_are_taken_at_their_dearest() -> None:
    prompt = [{"role": "user", "content": "x" * 20_000}]
    read = WorstCases([one(model="gemini/gemini-2.5-pro")], {}).of("quality", prompt, 1)
    kept = WorstCases([one(model="anthropic/claude-sonnet-4-5")], {}).of("quality", prompt, 1)

    assert read == pytest.approx(Decimal("0.0000025") * 20_640, rel=Decimal("0.01"))
    assert kept == pytest.approx(Decimal("0.000006") * 20_640, rel=Decimal("0.01"))


def test_a_prompt_in_any_script_has_no_more_tokens_than_it_is_taken_for() -> None:
    for sample in (
        "Hello, how are you?",
        "你好请问现在几点了",
        "🦊🐻🐼🦁",
        "8f3a9c0e11d24b7f",
        "Übergrößenträger",
        "नमस्ते",
    ):
        content = [{"role": "user", "content": sample * 50}]
        worst = WorstCases([one(model_info={"input_cost_per_token": 1, "output_cost_per_token": 0})], {})
        counted = litellm.token_counter(model="gpt-4", messages=content)
        assert worst.of("quality", content) >= counted, sample


@given(st.lists(texts))
def test_more_content_never_costs_less(said: list[str]) -> None:
    worst = WorstCases([one(model_info={"input_cost_per_token": 1e-6, "output_cost_per_token": 0})], {})
    messages = [{"role": "user", "content": text} for text in said]

    assert worst.of("quality", messages) <= worst.of("quality", [*messages, *HELLO])


def test_an_image_counts_wherever_its_bytes_are() -> None:
    worst = WorstCases([one(model_info={"input_cost_per_token": 1, "output_cost_per_token": 0})], {})
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    described = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]

    assert worst.of("quality", described) > 4_000 > worst.of("quality", HELLO)


def test_whoever_may_answer_is_counted() -> None:
    deployments = [output_only(price, name=name, alias=name, max_tokens=1) for name, price in (("a", 1), ("b", 2))]
    deployments += [
        output_only(3, name="c", alias="c", max_tokens=1),
        output_only(4, name="d", alias="d", max_tokens=1),
    ]
    chain = {"fallbacks": [{"a": ["b"]}, {"b": ["a"]}], "context_window_fallbacks": [{"b": ["c"]}]}

    assert [WorstCases(deployments, chain).of(alias, HELLO) for alias in "abcd"] == [3, 3, 3, 4]
    assert WorstCases(deployments, {"default_fallbacks": ["d"]}).of("a", HELLO) == 4


def test_vectors_cost_no_output() -> None:
    worst = WorstCases([one(model="openai/text-embedding-3-small")], {}).of("quality", ["hello"] * 100)

    assert 0 < worst < Decimal("0.0001"), "and reading is cheap"


def test_a_model_without_a_price_counts_as_free_and_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    worst = WorstCases([one(name="quality#1")], {})
    with caplog.at_level(logging.WARNING):
        assert [worst.of("quality", HELLO) for _ in range(3)] == [0, 0, 0]

    assert [record.getMessage() for record in caplog.records] == [
        "quality#1 has no price, so no budget holds its calls back"
    ]


async def test_a_call_costs_no_more_than_its_worst_case(provider: ScriptedProvider) -> None:
    provider.script(Text("word " * 75))
    pool = ModelPool([deployment(provider, "m", max_tokens=100, **priced(0.000001, 0.00002))], {}, {})
    usage = (await ask(pool)).usage

    assert usage.cost_usd is not None
    assert 0 < usage.cost_usd <= pool.worst_case("quality", HELLO)
