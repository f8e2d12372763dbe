"""What the pool never exceeds: provider calls, connections, requests a minute, time; and what it says a call cost."""

import asyncio
import socket
from decimal import Decimal
from typing import Any

import pytest

from holdfast.domain.errors import ModelRequestRefused, ModelsUnavailable
from holdfast.domain.model_calls import Completion
from holdfast.llm.pool import ModelPool
from holdfast.llm.router import MAX_CALLS
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Hang, HttpError, Reply, Stalls, Text
from tests.harness.conditions import until
from tests.harness.listening import Heard

pytestmark = pytest.mark.usefixtures("no_other_pool")

HELLO = [{"role": "user", "content": "hello"}]
TOO_LONG = HttpError(400, "This model's maximum context length is 4096 tokens. However, your messages are longer.")
AGAINST_POLICY = HttpError(400, "invalid_request_error: content_policy_violation, rejected by the safety system")


def deployment(provider: ScriptedProvider, name: str, alias: str = "quality", **params: Any) -> dict[str, Any]:
    """A deployment whose model is called like itself. `model_info` may be among the parameters."""
    info = {"id": name, **params.pop("model_info", {})}
    told = {"model": f"openai/{name}", "api_base": provider.url, "api_key": "key", **params}
    return {"model_name": alias, "litellm_params": told, "model_info": info}


def priced(prompt: float, completion: float) -> dict[str, Any]:
    """What a deployment says of its price, in dollars a token."""
    return {"model_info": {"input_cost_per_token": prompt, "output_cost_per_token": completion}}


async def ask(pool: ModelPool, heard: Heard | None = None) -> Completion:
    return await pool.complete("quality", HELLO, listener=heard)


def asked(provider: ScriptedProvider) -> list[str]:
    return [request.model for request in provider.requests]


async def test_one_model_call_is_so_many_provider_calls_at_most(provider: ScriptedProvider) -> None:
    deployments = [deployment(provider, f"m{number}", order=number) for number in range(1, 9)]
    provider.default = lambda _: HttpError(500)
    with pytest.raises(ModelsUnavailable):
        await ask(ModelPool(deployments, {}, {}))

    assert asked(provider) == [f"m{number}" for number in range(1, MAX_CALLS + 1)]
    assert MAX_CALLS == 6


@pytest.mark.parametrize("refusal", [TOO_LONG, AGAINST_POLICY], ids=["too long", "against the policy"])
async def test_what_another_model_may_take_falls_back_to_the_other_alias(
    provider: ScriptedProvider, refusal: HttpError
) -> None:
    provider.script(refusal, Text("the bigger one"))
    deployments = [
        deployment(provider, "first", order=1),
        deployment(provider, "second", order=2),
        deployment(provider, "bigger", "large"),
    ]
    answer = await ask(ModelPool(deployments, {"fallbacks": [{"quality": ["large"]}]}, {}))

    assert answer.text == "the bigger one"
    assert asked(provider) == ["first", "bigger"], "another deployment of the same alias would refuse it, too"


@pytest.mark.parametrize("refusal", [TOO_LONG, AGAINST_POLICY], ids=["too long", "against the policy"])
async def test_what_no_model_takes_is_refused(provider: ScriptedProvider, refusal: HttpError) -> None:
    provider.default = lambda _: refusal
    with pytest.raises(ModelRequestRefused):
        await ask(ModelPool([deployment(provider, "only")], {}, {}))

    assert provider.calls == 1


async def test_a_host_that_is_dead_is_left_alone_after_a_while(provider: ScriptedProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        pool = ModelPool([deployment(provider, "dead", api_base=dead), deployment(provider, "alive")], {}, {})
        tried_dead = 0
        for _ in range(60):
            provider.script(Text("here"))
            try:
                answer = await ask(pool)
            except ModelsUnavailable:
                tried_dead += 1
            else:
                tried_dead += len(answer.attempts) - 1

    assert 0 < tried_dead < 20, "LiteLLM alone would try it half of the time, for ever"


async def test_a_deployment_holds_no_more_connections_than_it_may(provider: ScriptedProvider) -> None:
    def slow_first(request: RecordedRequest) -> Reply:
        return Hang() if request.model == "slow" else Text("from the other")

    provider.default = slow_first
    slow = deployment(provider, "slow", order=1, max_parallel_requests=2)
    pool = ModelPool([slow, deployment(provider, "other", order=2)], {}, {})
    stuck = [asyncio.create_task(ask(pool)) for _ in range(2)]
    await until(lambda: provider.in_flight == 2)

    answers = [await ask(pool) for _ in range(20)]

    assert {answer.deployment for answer in answers} == {"other"}
    assert "limit" in str(answers[0].attempts[0].failure)
    assert asked(provider).count("slow") == 2
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    await until(lambda: provider.in_flight == 0)
    provider.default = lambda _: Text("free again")
    assert (await ask(pool)).deployment == "slow"


async def test_requests_and_tokens_a_minute_are_kept(provider: ScriptedProvider) -> None:
    # One pool for both: LiteLLM keeps the counts of the first limited Router of a process, and of no other.
    pool = ModelPool(
        [
            deployment(provider, "requests", order=1, rpm=3),
            deployment(provider, "other", order=2),
            deployment(provider, "tokens", "fast", order=1, tpm=300, max_parallel_requests=10),
            deployment(provider, "another", "fast", order=2),
        ],
        {},
        {},
    )
    for _ in range(8):
        await ask(pool)
    provider.default = lambda _: Text("a rather long answer " * 40)

    async def another_was_asked() -> bool:
        return (await pool.complete("fast", HELLO)).deployment == "another"

    # The limits are those of a minute, and the test may see the end of one.
    assert 3 <= asked(provider).count("requests") <= 6
    assert asked(provider).count("other") >= 2
    # Tokens are counted once they are spent, in a task of LiteLLM's.
    await until(another_was_asked)
    assert 1 <= asked(provider).count("tokens") < 20


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_attempt_ends_at_its_total_time(provider: ScriptedProvider, streamed: bool) -> None:
    provider.script(Stalls(Text("one two three"), after=2), Text("in time"))
    first = deployment(provider, "first", order=1, timeout=1.5, stream_timeout=60)
    pool = ModelPool([first, deployment(provider, "second", order=2)], {}, {})
    answer = await ask(pool, Heard() if streamed else None)

    assert (answer.text, answer.deployment) == ("in time", "second")
    assert answer.attempts[0].failure == "no answer in time (Timeout)"
    await until(lambda: provider.abandoned == 1)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_cancelled_call_closes_the_providers_connection(provider: ScriptedProvider, streamed: bool) -> None:
    provider.script(Stalls(Text("one two three"), after=2))
    heard = Heard()
    call = asyncio.create_task(ask(ModelPool([deployment(provider, "only")], {}, {}), heard if streamed else None))
    await until(lambda: heard.text == "one" if streamed else provider.in_flight == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await until(lambda: provider.abandoned == 1)
    assert provider.calls == 1, "and nobody else is asked"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("params", "per_token"),
    [
        ({"model": "openai/gpt-4o-mini"}, (Decimal("0.00000015"), Decimal("0.0000006"))),
        (
            {"model_info": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}},
            (Decimal("1e-6"), Decimal("2e-6")),
        ),
        ({"model_info": {"input_cost_per_token": 0, "output_cost_per_token": 0}}, (Decimal(0), Decimal(0))),
    ],
    ids=["in LiteLLM's list", "stated", "stated as free"],
)
async def test_a_call_costs_what_its_tokens_cost(
    provider: ScriptedProvider, streamed: bool, params: dict[str, Any], per_token: tuple[Decimal, Decimal]
) -> None:
    provider.script(Text("an answer of some length"))
    pool = ModelPool([deployment(provider, "priced", **params)], {}, {})
    usage = (await ask(pool, Heard() if streamed else None)).usage

    assert pool.unpriced == ()
    assert usage.prompt_tokens > 0
    assert usage.cost_usd == usage.prompt_tokens * per_token[0] + usage.completion_tokens * per_token[1]


async def test_a_model_without_a_price_is_named_at_the_start(provider: ScriptedProvider) -> None:
    deployments = [deployment(provider, "priceless"), deployment(provider, "listed", model="openai/gpt-4o-mini")]

    assert ModelPool(deployments, {}, {}).unpriced == ("openai/priceless",)


async def test_a_deployment_that_was_slow_once_is_asked_again(provider: ScriptedProvider) -> None:
    deployments = [deployment(provider, "one"), deployment(provider, "two")]
    pool = ModelPool(deployments, {}, {})
    for _ in range(40):
        await ask(pool)

    assert min(asked(provider).count(name) for name in ("one", "two")) >= 5
