"""OpenAI's forms of a run's log, without a server."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from api.projections.chat import ChatStream
from api.projections.responses import Head, ResponseStream, waiting_text
from holdfast.domain import events
from holdfast.domain.events import Event, LoggedEvent
from holdfast.domain.exchanges import Place
from holdfast.domain.model_calls import Usage
from holdfast.domain.progress import shown_by_answer
from holdfast.services.run_events import Told

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
RUN = f"run_{ULID}"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def asked(name: str, tool_call_id: str) -> Event:
    return events.ConfirmationRequested(
        f"conf_{name}", "call", tool_call_id, "pay", {"amount": 1}, "0" * 64, "pay: confirm", NOW, "reject"
    )


def proposed(tool_call_id: str, tool: str = "pay", step: int = 1) -> Event:
    return events.ToolCallProposed(tool_call_id, step, tool, {"amount": 1}, "read")


def as_told(*log: Event, after: int = 0) -> list[Told]:
    return [
        Told(RUN, 0, LoggedEvent(seq, event.TYPE, event.data), is_before=seq <= after)
        for seq, event in enumerate(log, 1)
    ]


def streamed(told: list[Told], after: int = 0) -> tuple[list[dict[str, Any]], ResponseStream]:
    stream = ResponseStream(Head(Place(RUN, after), "support", "conv_1", NOW))
    found = stream.begin()
    for one in told:
        if not stream.is_over:
            found += stream.take(one)
    if stream.is_over:
        found.append(stream.last_event(Usage(1, 2)))
    return found, stream


def output_text(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


SPOKEN = [
    events.RunStarted(),
    events.MessageDelta(1, 1, "Lost "),
    events.MessageDelta(1, 1, "words"),
    events.MessageReset(1, 1),
    events.MessageDelta(1, 2, "Said "),
    events.MessageDelta(1, 2, "at last."),
    events.MessageCompleted(1, "Said at last."),
    events.RunCompleted("msg_1", degraded=False, error=None),
]


def test_numbers_and_items_stay_when_pieces_of_text_are_gone() -> None:
    told = as_told(*SPOKEN)
    whole, stream = streamed(told)
    left, without = streamed([one for one in told if one.event.type != events.MessageDelta.TYPE])

    numbers = [event["sequence_number"] for event in whole]
    assert numbers == sorted(set(numbers))
    assert stream.response() == without.response()
    assert output_text(stream.response()) == "Said at last."
    assert [item["status"] for item in stream.response()["output"]] == ["incomplete", "completed"]
    ends = ("response.output_item.done", "response.completed")
    seqs = [[event["sequence_number"] // 256 for event in each if event["type"] in ends] for each in (whole, left)]
    assert seqs[0] == seqs[1]


def test_pieces_that_got_lost_are_told_with_the_whole_text() -> None:
    log = [
        events.RunStarted(),
        events.MessageDelta(1, 1, "\n"),
        proposed("call_a", "look_up"),
        events.ToolCallSucceeded("call_a", "look_up", "1", is_cut=False),
        events.MessageDelta(2, 2, "\n"),
        events.MessageDelta(2, 2, "Said "),
        events.MessageCompleted(2, "\nSaid at last."),
        events.MessageDelta(3, 3, "No beginning"),
        events.MessageCompleted(3, "And more."),
        events.MessageDelta(4, 4, "Cut off"),
        events.RunCancelled(None, "cancelled"),
    ]
    told, stream = streamed(as_told(*log))
    chat = ChatStream(RUN)
    deltas = [delta["content"] for one in as_told(*log) for delta in chat.take(one)]

    pieces: dict[int, str] = {}
    for event in told:
        if event["type"] == "response.output_text.delta":
            pieces[event["output_index"]] = pieces.get(event["output_index"], "") + event["delta"]
    output = stream.response()["output"]
    assert [item["type"] for item in output] == ["mcp_call", *["message"] * 4], (
        "nothing is opened for a mere line break"
    )
    assert [item["status"] for item in output] == ["completed", "completed", "incomplete", "completed", "incomplete"]
    assert (pieces[1], pieces[3]) == ("\nSaid at last.", "And more.")
    assert output_text(stream.response()) == "\nSaid at last.And more."
    assert "".join(deltas) == "\nSaid at last.\n\nNo beginning\n\nAnd more.\n\nCut off"


def test_an_answer_ends_where_nothing_but_people_is_waited_for() -> None:
    log = [
        events.RunStarted(),
        proposed("call_a"),
        proposed("call_b"),
        proposed("call_c", "look_up"),
        asked("a", "call_a"),
        events.ToolCallStarted("call_c", "look_up", 1),
        asked("b", "call_b"),
        events.ToolCallSucceeded("call_c", "look_up", "1", is_cut=False),
        events.ConfirmationDecided("conf_a", "reject", None, None),
        events.ToolCallRejected("call_a", "pay", "no"),
        events.ConfirmationDecided("conf_b", "approve", None, None),
        events.ToolCallStarted("call_b", "pay", 1),
        events.ToolCallSucceeded("call_b", "pay", "2", is_cut=False),
        events.MessageCompleted(2, "Done."),
        events.RunCompleted("msg_1", degraded=False, error=None),
    ]
    _, first = streamed(as_told(*log))
    _, only_a = streamed(as_told(*log, after=9), after=9)
    _, both = streamed(as_told(*log, after=11), after=11)

    kinds = [[item["type"] for item in one.response()["output"]] for one in (first, only_a, both)]
    assert kinds[0] == ["mcp_call", "mcp_approval_request", "mcp_approval_request"]
    assert kinds[1] == ["mcp_call", "mcp_approval_request"], "what is pending still is asked again"
    assert kinds[2] == ["mcp_call", "message"]
    assert [one.response()["id"] for one in (first, only_a, both)] == [
        f"resp_{ULID}",
        f"resp_{ULID}_9",
        f"resp_{ULID}_11",
    ]
    assert (first.last_step, both.first_step, both.last_step) == (1, 1, None)
    call = both.response()["output"][0]
    assert (call["approval_request_id"], call["output"], call["arguments"]) == (
        f"mcpr_b_{'0' * 64}",
        "2",
        '{"amount":1}',
    )


def test_a_yes_is_to_what_the_answer_before_it_has_shown() -> None:
    log = [
        events.RunStarted(),
        proposed("call_a"),
        proposed("call_c", "look_up"),
        asked("a", "call_a"),
        # Somebody decides while the answer still goes on, which then ends with another question.
        events.ConfirmationDecided("conf_a", "reject", None, None),
        events.ToolCallRejected("call_a", "pay", "no"),
        events.ToolCallSucceeded("call_c", "look_up", "1", is_cut=False),
        proposed("call_b", step=2),
        asked("b", "call_b"),
        events.ConfirmationDecided("conf_b", "approve", None, None),
        events.ToolCallSucceeded("call_b", "pay", "2", is_cut=False),
        proposed("call_d", step=3),
        asked("d", "call_d"),
    ]
    logged = [told.event for told in as_told(*log)]
    for after, name in ((0, "b"), (10, "d")):
        _, stream = streamed(as_told(*log, after=after), after)
        (request,) = (item["id"] for item in stream.response()["output"] if item["type"] == "mcp_approval_request")
        assert request == f"mcpr_{name}_{'0' * 64}"
        assert shown_by_answer(logged, after) == {f"conf_{name}"}
    assert shown_by_answer(logged[:4], 0) == frozenset(), "an answer that goes on has asked nothing yet"


def test_how_a_run_ends_is_how_its_response_ends() -> None:
    for end, status, last in (
        (events.RunFailed(None, "terminated"), "failed", "response.failed"),
        (events.RunCancelled(None, "cancelled"), "cancelled", "response.incomplete"),
    ):
        found, stream = streamed(as_told(events.RunStarted(), end))
        assert (stream.status, found[-1]["type"]) == (status, last)
        assert (found[-1]["response"]["error"] or {}).get("message") == ("terminated" if status == "failed" else None)


def test_a_run_whose_log_is_gone_has_its_reply() -> None:
    stream = ResponseStream(Head(Place(RUN), "support", "conv_1", NOW))
    whole, _ = streamed(as_told(*SPOKEN))
    told = [*stream.begin(), *stream.close("completed", "Said at last.", None), stream.last_event(Usage(1, 2))]
    assert output_text(stream.response()) == "Said at last."
    left = [event["type"] for event in told if event["sequence_number"] > whole[-2]["sequence_number"]]
    assert left == ["response.completed"], "who was cut off before the end still hears of it"


def test_a_chat_has_paragraphs_and_calls() -> None:
    stream = ChatStream(RUN)
    log = [
        *SPOKEN[:-1],
        events.MessageCompleted(2, "And more."),
        proposed("call_w", "weather", 2),
        events.ToolCallHandedOver("call_w", "weather", "{}"),
        events.RunCompleted(None, degraded=False, error=None),
    ]
    deltas = [delta for told in as_told(*log) for delta in stream.take(told)]

    assert "".join(delta.get("content", "") for delta in deltas) == "Lost words\n\nSaid at last.\n\nAnd more."
    assert stream.message["content"] == "Said at last.\n\nAnd more."
    assert stream.finish_reason == "tool_calls"
    function = {"name": "weather", "arguments": "{}"}
    assert stream.message["tool_calls"] == [{"id": "call_w", "type": "function", "function": function}]


def test_a_chat_names_what_waits() -> None:
    stream = ChatStream(RUN)
    told = as_told(events.RunStarted(), proposed("call_a"), asked("a", "call_a"))
    for one in told:
        stream.take(one)
    assert stream.is_quiet
    assert [delta["content"].endswith("conf_a") for delta in stream.wait_no_longer()] == [True]
    spoken = json.loads(told[-1].event.data) | {"arguments": {"to": "```\n\u202eann"}}
    assert '\n{"to":"```\\n\\u202eann"}\n```\n' in waiting_text(spoken), "one line, with nothing hidden in it"
    merged = replace(told[0], run_id="run_other", hop=1)
    stream.take(merged)
    assert not stream.is_quiet, "another run's log says nothing of this one's"
