"""An answer over the wire: whole or in chunks, it is the same answer."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.llm.openai_wire import Answer, Call, completion, count_tokens, events, words
from tests.unit.builders import json_objects, texts

calls = st.builds(Call, tool=texts, arguments=texts, id=st.none() | texts)
answers = st.builds(
    Answer,
    model=texts,
    text=texts,
    calls=st.lists(calls, max_size=3),
    prompt_tokens=st.integers(0, 9_999),
    completion_tokens=st.integers(0, 9_999),
)


def chunks(answer: Answer, *, include_usage: bool) -> list[dict[str, Any]]:
    *data, done = events(answer, include_usage=include_usage)
    assert done == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 for event in data)
    return [json.loads(event.removeprefix(b"data: ")) for event in data]


@given(answers)
def test_the_deltas_add_up_to_the_whole(answer: Answer) -> None:
    whole = completion(answer)["choices"][0]
    choices = [chunk["choices"][0] for chunk in chunks(answer, include_usage=False)]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == answer.text
    asked = [part for choice in choices for part in choice["delta"].get("tool_calls", [])]
    assert [part.pop("index") for part in asked] == list(range(len(answer.calls)))
    assert asked == whole["message"].get("tool_calls", [])
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


@given(answers)
def test_usage_comes_last_and_only_when_it_is_asked_for(answer: Answer) -> None:
    *before, last = chunks(answer, include_usage=True)
    assert before == chunks(answer, include_usage=False)
    assert last["usage"] == completion(answer)["usage"] == answer.usage
    assert last["choices"] == []


@given(answers)
def test_a_provider_may_keep_what_it_took_to_itself(answer: Answer) -> None:
    silent = replace(answer, sends_usage=False)
    assert "usage" not in completion(silent)
    assert chunks(silent, include_usage=True) == chunks(answer, include_usage=False)


@given(texts)
def test_the_words_of_a_text_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@given(json_objects)
def test_arguments_may_go_out_as_an_object(arguments: dict[str, Any]) -> None:
    call = Call("look_up", json.dumps(arguments), None, as_object=True)
    (asked,) = completion(Answer("m", calls=[call]))["choices"][0]["message"]["tool_calls"]
    assert asked["function"]["arguments"] == arguments


def test_arguments_that_are_no_json_stay_text() -> None:
    assert Call("t", '{"a":', None).value == '{"a":'


def test_a_call_may_have_no_id_and_an_answer_no_text() -> None:
    message = completion(Answer("m", calls=[Call("look_up", "{}", None)]))["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "look_up", "arguments": "{}"}}],
    }


@given(texts)
def test_four_characters_are_a_token_and_nothing_is_free(text: str) -> None:
    assert count_tokens(text) == max(1, len(text) // 4)
    assert count_tokens([text]) == max(1, len(json.dumps([text])) // 4)
