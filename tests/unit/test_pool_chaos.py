"""Many calls at once, each met by a random fault: every answer is whole, its listener has it, every slot comes back."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from holdfast.domain.errors import ModelsUnavailable
from holdfast.domain.model_calls import Completion
from holdfast.llm.pool import ModelPool
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Cut, EmptyChoices, EndsEarly, Garbage, HttpError, Reply, Stalls, Text
from tests.harness.conditions import until
from tests.harness.listening import Heard

pytestmark = pytest.mark.usefixtures("no_other_pool")

CALLS = 200
AT_ONCE = 20


def deployments(provider: ScriptedProvider) -> list[dict[str, Any]]:
    models = {
        "first": {"model": "openai/first", "api_base": provider.url},
        "second": {"model": "anthropic/claude-second", "api_base": provider.root},
        "third": {"model": "openai/third", "api_base": provider.url},
    }
    return [
        {
            "model_name": "quality",
            "litellm_params": {**told, "api_key": "key", "order": order, "max_parallel_requests": AT_ONCE},
            "model_info": {"id": name},
        }
        for order, (name, told) in enumerate(models.items(), start=1)
    ]


def faults(seed: int) -> Any:
    """Answers that name their question, and now and then anything else."""
    chance = random.Random(seed)

    def reply(request: RecordedRequest) -> Reply:
        whole = Text(f"{request.last_text} is answered in several words")
        choices: list[Reply] = [
            whole,
            whole,
            Cut(whole, after=chance.randrange(400)),
            EndsEarly(whole, after=chance.randrange(1, 5)),
            HttpError(chance.choice([429, 500, 503])),
            # In Anthropic's format it would be an answer without a word, which is an answer.
            EmptyChoices() if request.wire == "openai" else Garbage(),
        ]
        return chance.choice(choices)

    return reply


@pytest.mark.parametrize("seed", [1, 2])
async def test_under_faults_every_answer_is_the_right_one_and_heard_as_it_is(
    provider: ScriptedProvider, seed: int
) -> None:
    provider.default = faults(seed)
    pool = ModelPool(deployments(provider), {"disable_cooldowns": True}, {})
    numbers = iter(range(CALLS))
    told: list[tuple[int, Completion | None, Heard]] = []

    async def caller() -> None:
        for number in numbers:
            heard = Heard()
            question = [{"role": "user", "content": f"question {number}"}]
            try:
                answer = await pool.complete("quality", question, listener=heard if number % 3 else None)
            except ModelsUnavailable:
                told.append((number, None, heard))
            else:
                told.append((number, answer, heard))

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    assert len(told) == CALLS
    answers = [(number, answer, heard) for number, answer, heard in told if answer is not None]
    assert len(answers) > CALLS // 2
    for number, answer, heard in answers:
        assert answer.text == f"question {number} is answered in several words"
        assert heard.text == (answer.text if number % 3 else "")
        order = [attempt.deployment for attempt in answer.attempts]
        assert order == ["first", "second", "third"][: len(order)]
        assert [attempt.failure is None for attempt in answer.attempts] == [False] * (len(order) - 1) + [True]
    assert [heard.text for _, answer, heard in told if answer is None and heard.text] == []
    asked = Counter(request.last_text for request in provider.requests)
    assert max(asked.values()) <= 3, "no deployment is asked twice for one call"
    assert sum(asked.values()) == provider.calls
    expected = Counter({f"question {number}": len(answer.attempts) for number, answer, _ in answers})
    assert {question: asked[question] for question in expected} == dict(expected)


async def test_calls_that_are_cancelled_give_their_slots_back(provider: ScriptedProvider) -> None:
    provider.default = lambda _: Stalls(Text("one two three four"), after=2)
    pool = ModelPool(deployments(provider)[:1], {"disable_cooldowns": True}, {})
    question = [{"role": "user", "content": "hello"}]
    for listener in (None, lambda _: None):
        calls = [asyncio.create_task(pool.complete("quality", question, listener=listener)) for _ in range(AT_ONCE)]
        await until(lambda: provider.in_flight == AT_ONCE)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: provider.in_flight == 0)

    assert provider.abandoned == 2 * AT_ONCE
    provider.default = lambda _: Text("free")
    answers = await asyncio.gather(*(pool.complete("quality", question) for _ in range(AT_ONCE)))
    assert {answer.text for answer in answers} == {"free"}
