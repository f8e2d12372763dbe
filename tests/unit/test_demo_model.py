"""The demo model over HTTP: it does the shop's job by matching words, and says in every reply that it is a demo."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.shop import tools as shop
from holdfast.dev.demo_model import MARK, MODEL, respond
from holdfast.dev.providers import demo_model
from holdfast.llm.structured import Schema, instructed
from holdfast.tools.functions import tool_from_function

TOOLS = [tool_from_function(function).as_function for function in (shop.lookup_order, shop.refund_order)]


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[httpx.AsyncClient]:
    async with demo_model() as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def question(*messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(messages), "tools": TOOLS, **options}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def results(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": f"call_{number}", "content": text} for number, text in enumerate(texts)]


async def answer(model: httpx.AsyncClient, *messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    response = await model.post("/chat/completions", json=question(*messages, **options))
    response.raise_for_status()
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


async def call(model: httpx.AsyncClient, text: str) -> tuple[str, dict[str, Any]]:
    message = await answer(model, user(text))
    assert message["content"] is None
    (asked,) = message["tool_calls"]
    return asked["function"]["name"], json.loads(asked["function"]["arguments"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}, "minItems": 3},
        {
            "type": "object",
            "required": ["name", "level", "tags", "price", "is_new", "none"],
            "properties": {
                "name": {"type": "string"},
                "level": {"enum": ["low", "high"]},
                "tags": {"type": "array", "items": {"const": 1}},
                "price": {"type": "number", "minimum": 2.5},
                "is_new": {"type": "boolean"},
                "none": {"type": "null"},
                "left_out": {"type": "integer"},
            },
        },
        {},
    ],
)
def test_asked_for_json_it_makes_up_the_least_that_fits(schema: dict[str, Any]) -> None:
    wanted = Schema(schema)
    told = respond(question(*instructed([{"role": "user", "content": "Three colours."}], wanted)))
    assert told.calls == []
    wanted.read(told.text)


async def test_it_lists_itself(model: httpx.AsyncClient) -> None:
    assert [listed["id"] for listed in (await model.get("/models")).json()["data"]] == [MODEL]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where is order 1042?", ("lookup_order", {"order_id": 1042})),
        ("Where is my order #1042, please?", ("lookup_order", {"order_id": 1042})),
        ("refund order 1042", ("refund_order", {"order_id": 1042})),
        (
            "Please REFUND order 1042 because it came late.",
            ("refund_order", {"order_id": 1042, "reason": "it came late"}),
        ),
    ],
)
async def test_it_picks_the_tool_and_finds_its_arguments(
    model: httpx.AsyncClient, text: str, expected: tuple[str, dict[str, Any]]
) -> None:
    assert await call(model, text) == expected


async def test_it_asks_for_what_is_missing(model: httpx.AsyncClient) -> None:
    message = await answer(model, user("refund my order"))
    assert message["content"] == f"{MARK} To refund order I need the order id. Which one is it?"


async def test_it_calls_nothing_where_it_must_not(model: httpx.AsyncClient) -> None:
    message = await answer(model, user("where is order 1042?"), tool_choice="none")
    assert "tool_calls" not in message
    assert message["content"].startswith(MARK)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (['{"status": "in transit"}'], "Done. Here is what I found: status: in transit."),
        (['{"error": "there is no order 7"}'], "That did not work out. I was told: there is no order 7"),
        (["This call was not run."], "The tool answered: This call was not run."),
        (["1", "[true, null]"], "Done. Here is what I found: 1. Done. Here is what I found: yes; nothing."),
        ([""], "The tool answered: "),
        (["NaN"], "Done. Here is what I found: nan."),
        (["9" * 5_000], "The tool answered: " + "9" * 500),
        (["[" * 100_000], "The tool answered: " + "[" * 500),
    ],
)
async def test_a_tools_result_becomes_a_sentence(model: httpx.AsyncClient, told: list[str], expected: str) -> None:
    message = await answer(model, user("where is order 1042?"), {"role": "assistant"}, *results(*told))
    assert message["content"] == f"{MARK} {expected}"


async def test_only_the_latest_results_are_told(model: httpx.AsyncClient) -> None:
    message = await answer(model, *results('"old"'), user("and order 1041?"), {"role": "assistant"}, *results('"new"'))
    assert "new" in message["content"]
    assert "old" not in message["content"]


@pytest.mark.parametrize(
    "asked",
    [
        "Are you a human?",
        "are you an AI",
        "You're a bot, right?",
        "Is this a real person?",
        "Am I talking to a human?",
        "Are you really there,\nor just a machine?",
        "where is order 1042? And are you a robot?",
    ],
)
async def test_asked_whether_it_is_human_it_says_plainly_that_it_is_an_ai(model: httpx.AsyncClient, asked: str) -> None:
    message = await answer(model, user(asked))
    assert message["content"].startswith(f"{MARK} I am an AI system, not a person")
    assert "tool_calls" not in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "👩🏽‍🚀🎉",
        "Wo ist meine Bestellung 1042?",
        "注文1042はどこですか",
        "أين طلبي؟",
        "x" * 100_000,
        "where is order " + "9" * 5_000,
        "refund order 1042 because",
        "order " * 16_000,
        "\x00\u2028",
        [{"type": "text", "text": "where is order 1042?"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
        None,
    ],
    ids=lambda text: repr(text)[:20],
)
async def test_any_text_is_answered(model: httpx.AsyncClient, text: Any) -> None:
    message = await answer(model, user(text))
    assert message.get("tool_calls") or message["content"].startswith(MARK)


@given(st.text() | st.from_regex(r"(where is|refund) order -?[0-9.]*( because .*)?"))
def test_any_text_at_all_is_answered_alike_each_time(text: str) -> None:
    first = respond(question(user(text)))
    assert first.text.startswith(MARK) or first.calls
    assert respond(question(user(text))) == first
    for asked in first.calls:
        json.loads(asked.arguments, parse_constant=pytest.fail)


@given(st.text())
def test_any_result_is_answered_with_a_text(told: str) -> None:
    assert respond(question(user("x"), *results(told))).text.startswith(MARK)


async def streamed(model: httpx.AsyncClient, text: str, **options: Any) -> list[dict[str, Any]]:
    body = question(user(text), stream=True, **options)
    async with model.stream("POST", "/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("text", ["hello   there\n\n👋 ", "Are you a bot?", "where is order 1042?"])
async def test_a_stream_says_what_the_whole_answer_says(model: httpx.AsyncClient, text: str) -> None:
    whole = await answer(model, user(text))
    choices = [chunk["choices"][0] for chunk in await streamed(model, text)]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == (whole["content"] or "")
    calls = [{**part} for choice in choices for part in choice["delta"].get("tool_calls", [])]
    assert [part.pop("index") for part in calls] == list(range(len(calls)))
    assert calls == whole.get("tool_calls", [])
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [
        "tool_calls" if calls else "stop"
    ]


async def test_a_stream_counts_only_when_it_is_asked_to(model: httpx.AsyncClient) -> None:
    whole = (await model.post("/chat/completions", json=question(user("hello")))).json()
    *_, last = await streamed(model, "hello", stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]
    assert not any("usage" in chunk for chunk in await streamed(model, "hello"))
