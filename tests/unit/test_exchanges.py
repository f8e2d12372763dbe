"""What of a conversation that a client sends is new, and how the rest of it is recognised."""

import json
from typing import Any

import pytest

from api.openai_input import read_items, read_messages
from holdfast.domain.client_tools import ClientOutput, clashing, read_tools
from holdfast.domain.errors import InvalidInput
from holdfast.domain.exchanges import Exchange, Place, approval_id, place_of, run_of_item

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
USER = {"role": "user", "content": "hi"}
AGENT = {"role": "assistant", "content": "Hello."}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}


def sent(*items: Any) -> Exchange:
    return Exchange("support", read_items(items))


def test_what_follows_the_agents_last_word_is_new() -> None:
    assert sent(USER, USER).text == "hi\n\nhi"
    assert sent(USER, AGENT, {"role": "user", "content": "and?"}).text == "and?"
    assert sent(USER, AGENT).text == ""
    with_output = sent(USER, CALL, OUTPUT)
    assert (with_output.text, with_output.outputs) == ("", (ClientOutput("call_1", "sun"),))
    parallel = sent(USER, CALL, OUTPUT, {**CALL, "call_id": "call_2"}, {**OUTPUT, "call_id": "call_2"})
    assert [output.tool_call_id for output in parallel.outputs] == ["call_1", "call_2"]
    assert sent(USER, CALL, OUTPUT, AGENT, USER).outputs == ()


def test_a_history_is_recognised_by_what_was_sent_before() -> None:
    first = sent(USER)
    second = sent(USER, AGENT, {"role": "user", "content": "and?"})
    third = sent(USER, AGENT, {"role": "user", "content": "and?"}, AGENT, CALL, USER)

    assert second.earlier == first.history
    assert third.earlier == second.history
    assert [entry.text for entry in second.last_words] == ["Hello."]
    other = Exchange("support", first.entries, user="ann")
    assert len({first.history, other.history, Exchange("other", first.entries).history}) == 3
    assert read_messages([USER, AGENT]) == read_items([USER, AGENT])


def test_a_decision_names_its_arguments() -> None:
    request_id = approval_id(f"conf_{ULID}", "a" * 64)
    item = {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": False, "reason": "dear"}
    (approval,) = sent(USER, {"type": "mcp_approval_request", "id": request_id}, item).approvals
    assert (approval.confirmation_id, approval.arguments_digest) == (f"conf_{ULID}", "a" * 64)
    assert (approval.approve, approval.reason) == (False, "dear")
    assert sent(item, AGENT, USER).approvals == (), "that was decided before"
    with pytest.raises(InvalidInput):
        _ = sent({**item, "approval_request_id": "mcpr_x"}).approvals


@pytest.mark.parametrize("wrong", [{}, {"type": []}, {"type": {}}, {"type": 1}, {"type": "x"}, {**USER, "role": []}])
def test_what_is_no_item(wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        read_items([wrong])


def test_a_reason_that_can_not_be_stored() -> None:
    item = {"type": "mcp_approval_response", "approval_request_id": "mcpr_x", "approve": True, "reason": "\ud800"}
    with pytest.raises(InvalidInput):
        read_items([item])


@pytest.mark.parametrize("name", ["1", "2_1", "0", ULID, "apology"])
def test_a_message_tells_its_run(name: str) -> None:
    assert run_of_item(f"msg_{ULID}_{name}") == (None if name == "apology" else f"run_{ULID}")


@pytest.mark.parametrize(
    "output", ["NaN", "[-Infinity]", "1e999", '"\\ud800"', '"\\u0000"', "[" * 400 + "]" * 400, "[" * 99_999]
)
def test_an_output_that_only_reads_like_json_is_a_text(output: str) -> None:
    assert json.loads(ClientOutput("call_1", output).result) == output
    assert ClientOutput("call_1", '{"a": [1e3, null]}').result == '{"a": [1e3, null]}'


@pytest.mark.parametrize("response_id", [f"resp_{ULID}", f"resp_{ULID}_12"])
def test_a_response_id_names_a_place(response_id: str) -> None:
    place = place_of(response_id)
    assert place is not None
    assert place.response_id == response_id


@pytest.mark.parametrize("response_id", ["resp_", f"resp_{ULID}_0", f"resp_{ULID}_", f"run_{ULID}", f"resp_{ULID}\n"])
def test_what_is_no_response_id(response_id: str) -> None:
    assert place_of(response_id) is None
    assert Place(f"run_{ULID}").response_id == f"resp_{ULID}"


def test_tools_of_a_client() -> None:
    tools = read_tools([{"name": "weather"}, {"name": "get_time", "description": "d"}])
    assert clashing(tools, ["look_up", "get_*"]) == "get_time"
    assert clashing(tools, ["look_up"]) is None
    for wrong in (
        [{"name": "a b"}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "parameters": {"type": "string"}}],
        [{"name": "a", "parameters": {"type": "object", "properties": 1}}],
        [{"name": "a", "description": "x" * 70_000}],
        [{"name": f"a{place}"} for place in range(65)],
        [{"name": "a", "description": "\x00"}],
    ):
        with pytest.raises(InvalidInput):
            read_tools(wrong)
