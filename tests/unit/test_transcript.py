"""The transcript that a model is given is one that every provider takes."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.messages import (
    NO_RESULT,
    ONLY_OUTPUTS,
    PastRun,
    PastStep,
    RequestedToolCall,
    ToolExchange,
    as_chat,
)
from tests.unit.builders import texts

SYSTEM = "You are Mira."


@st.composite
def conversations(draw: st.DrawFn) -> list[PastRun]:
    numbers = iter(range(1_000))

    def exchange() -> ToolExchange:
        call = RequestedToolCall(tool=draw(texts), arguments=draw(texts))
        return ToolExchange(f"call_{next(numbers)}", call, draw(st.none() | texts))

    def step() -> PastStep:
        return PastStep(draw(texts), tuple(exchange() for _ in range(draw(st.integers(1, 3)))))

    return [
        PastRun(draw(texts), tuple(step() for _ in range(draw(st.integers(0, 2)))), draw(st.none() | texts))
        for _ in range(draw(st.integers(0, 3)))
    ]


@given(conversations())
def test_each_tool_call_is_followed_by_exactly_one_result(runs: list[PastRun]) -> None:
    chat = as_chat(SYSTEM, runs)
    open_calls: list[str] = []
    for message in chat:
        if message["role"] == "tool":
            assert isinstance(message["content"], str)
            assert message["tool_call_id"] == open_calls.pop(0)
            continue
        assert not open_calls
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
    assert not open_calls


@given(conversations())
def test_each_call_is_one_that_every_provider_takes_back(runs: list[PastRun]) -> None:
    for message in as_chat(SYSTEM, runs):
        for call in message.get("tool_calls", []):
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call["function"]["name"])
            assert isinstance(json.loads(call["function"]["arguments"]), dict)


@pytest.mark.parametrize("raw", ['{"order_id": ', "[1]", '"x"', "null", "7", '{"x": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_shown_in_one(raw: str) -> None:
    step = PastStep("", (ToolExchange("call_1", RequestedToolCall("functions.pay", raw), "no"),))
    (call,) = as_chat(SYSTEM, [PastRun("Pay.", (step,))])[2]["tool_calls"]
    assert call["function"]["name"] == "functions_pay"
    assert json.loads(call["function"]["arguments"]) == {"not_an_object": raw}


@given(conversations())
def test_nothing_that_was_said_is_lost_or_moved(runs: list[PastRun]) -> None:
    chat = as_chat(SYSTEM, runs)
    assert [message["content"] for message in chat if message["role"] == "system"] == [SYSTEM]
    assert chat[0]["role"] == "system"
    assert [message["content"] for message in chat if message["role"] == "user"] == [
        run.user_text or ONLY_OUTPUTS for place, run in enumerate(runs) if run.user_text or place == 0
    ]
    said = [m["content"] for m in chat if m["role"] == "assistant" and "tool_calls" not in m]
    assert said == [run.reply for run in runs if run.reply is not None]


def test_a_call_without_a_result_is_said_not_to_have_run() -> None:
    call = RequestedToolCall("refund_order", '{"order_id": 1042}')
    unknown, empty = ToolExchange("call_1", call, None), ToolExchange("call_2", call, "")
    assert as_chat(SYSTEM, [PastRun("Refund it.", (PastStep("", (unknown, empty)),))])[2:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": name, "type": "function", "function": {"name": call.tool, "arguments": call.arguments}}
                for name in ("call_1", "call_2")
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": NO_RESULT},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
    ]
