"""A run's log in the words of AG-UI and of the AI SDK: what a client shows in the end is what is stored."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from ag_ui.core import BaseEvent, RunAgentInput
from hypothesis import given
from hypothesis import strategies as st

from api.projections.agui import AgUiRun
from api.projections.story import Outcome, Question, Settled, Story
from api.projections.ui_messages import Chunk, UiMessage
from holdfast.domain.events import LoggedEvent
from holdfast.services.run_events import ReplyAlone, Told

Log = list[Told]
Json = dict[str, Any]

BEGUN = [("run.queued", {"run_id": "run_1", "conversation_id": "conv_1"}), ("run.started", {})]
DONE = [("run.completed", {"reply_id": "msg_1", "degraded": False, "error": None})]


def log(*told: tuple[str, Json]) -> Log:
    events = [LoggedEvent(seq, kind, json.dumps(data)) for seq, (kind, data) in enumerate([*BEGUN, *told], 1)]
    return [Told("run_1", 0, event, is_before=False) for event in events]


def piece(text: str, step: int = 1, attempt: int = 1) -> tuple[str, Json]:
    return "message.delta", {"step": step, "attempt": attempt, "text": text}


def whole(text: str, step: int | None = 1) -> tuple[str, Json]:
    return "message.completed", {"step": step, "text": text}


def proposed(call: str = "call_1", step: int = 1) -> tuple[str, Json]:
    return "tool_call.proposed", {
        "tool_call_id": call,
        "step": step,
        "tool": "pay",
        "arguments": {"amount": 1},
        "effect": "irreversible",
    }


def requested(call: str | None = "call_1", confirmation: str = "conf_1", kind: str = "call") -> tuple[str, Json]:
    return "confirmation.requested", {
        "confirmation_id": confirmation,
        "kind": kind,
        "tool_call_id": call,
        "tool": "pay",
        "arguments": {"amount": 1},
        "arguments_digest": "0" * 64,
        "rule": "pay: confirm",
        "deadline": "2026-11-21T14:00:00+00:00",
        "on_deadline": "reject",
    }


def decided(decision: str, confirmation: str = "conf_1", reason: str | None = None) -> tuple[str, Json]:
    data = {"confirmation_id": confirmation, "decision": decision, "reason": reason, "edited_arguments": None}
    return "confirmation.decided", data


def outcome(kind: str, call: str = "call_1", **data: Any) -> tuple[str, Json]:
    return f"tool_call.{kind}", {"tool_call_id": call, "tool": "pay", **data}


class AgUiScreen:
    """What an AG-UI client holds: messages by id, as its events make them; it breaks on what a client would refuse."""

    def __init__(self, messages: Iterable[Json] = ()) -> None:
        self.messages = [dict(message) for message in messages]
        self.open: set[str] = set()
        self.last = ""

    def show(self, events: Iterable[BaseEvent]) -> None:
        for event in events:
            assert not self.last.startswith(("RUN_FINISHED", "RUN_ERROR"))
            data = event.model_dump(by_alias=True, mode="json")
            self.last = data["type"]
            getattr(self, self.last.lower(), lambda _: None)(data)

    def run_finished(self, _: Json) -> None:
        assert not self.open

    def text_message_start(self, data: Json) -> None:
        assert data["messageId"] not in self.open
        self.open.add(data["messageId"])
        self.of(data["messageId"])

    def text_message_content(self, data: Json) -> None:
        assert data["messageId"] in self.open
        message = self.of(data["messageId"])
        message["content"] = message.get("content", "") + data["delta"]

    def text_message_end(self, data: Json) -> None:
        self.open.remove(data["messageId"])

    def messages_snapshot(self, data: Json) -> None:
        self.messages = data["messages"]

    def tool_call_start(self, data: Json) -> None:
        call = {"id": data["toolCallId"], "function": {"name": data["toolCallName"], "arguments": ""}}
        self.of(data["parentMessageId"]).setdefault("toolCalls", []).append(call)

    def tool_call_result(self, data: Json) -> None:
        self.messages.append({"id": data["messageId"], "role": "tool", "content": data["content"]})

    def of(self, message_id: str) -> Json:
        for message in self.messages:
            if message["id"] == message_id:
                return message
        self.messages.append({"id": message_id, "role": "assistant"})
        return self.messages[-1]

    @property
    def texts(self) -> list[str]:
        return [one["content"] for one in self.messages if one["role"] == "assistant" and one.get("content")]


class SdkScreen:
    """What a chat of the AI SDK holds: the parts of one message, as its chunks make them."""

    def __init__(self) -> None:
        self.id = ""
        self.parts: list[Json] = []

    def show(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            kind = str(chunk["type"])
            settled = self.settle if kind.startswith("tool-") else lambda _: None
            getattr(self, kind.replace("-", "_"), settled)(chunk)

    def start(self, chunk: Chunk) -> None:
        self.id = chunk["messageId"]

    def start_step(self, _: Chunk) -> None:
        self.parts.append({"type": "step-start"})

    def reset_step(self, _: Chunk) -> None:
        while self.parts[-1]["type"] != "step-start":
            self.parts.pop()

    def text_start(self, chunk: Chunk) -> None:
        self.parts.append({"type": "text", "id": chunk["id"], "text": ""})

    def text_delta(self, chunk: Chunk) -> None:
        assert self.parts[-1]["id"] == chunk["id"]
        self.parts[-1]["text"] += chunk["delta"]

    def tool_input_available(self, chunk: Chunk) -> None:
        self.parts = [one for one in self.parts if one.get("id") != chunk["toolCallId"]]
        self.parts.append({"type": "tool", "id": chunk["toolCallId"], "state": "input", "input": chunk["input"]})

    def settle(self, chunk: Chunk) -> None:
        (part,) = [one for one in self.parts if one.get("id") == chunk["toolCallId"]]
        part["state"] = chunk["type"]

    @property
    def texts(self) -> list[str]:
        return [part["text"] for part in self.parts if part["type"] == "text"]

    @property
    def calls(self) -> dict[str, str]:
        return {part["id"]: part["state"] for part in self.parts if part["type"] == "tool"}


def given_by(*messages: Json) -> RunAgentInput:
    said = [{"id": "u1", "role": "user", "content": "hello"}, *messages]
    return RunAgentInput.model_validate({"threadId": "t", "runId": "r", "messages": said})


def agui(told: Log, *messages: Json, answered: tuple[str, ...] = ()) -> AgUiScreen:
    given = given_by(*messages)
    run = AgUiRun(given, answered)
    screen = AgUiScreen(message.model_dump(by_alias=True, mode="json") for message in given.messages)
    screen.show(run.begin("run_1", "conv_1"))
    for event in told:
        screen.show(run.on(event))
    return screen


def sdk(told: Log, answered: tuple[str, ...] = (), screen: SdkScreen | None = None) -> SdkScreen:
    message, screen = UiMessage("run_1", answered), screen or SdkScreen()
    for event in told:
        screen.show(message.on(event))
    return screen


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[tuple[str, Json]], list[str]]:
    """What is told of the texts of a run, whose models break off and whose pieces get lost; and the texts."""
    told, texts, attempt = [], [], 0
    for step in range(1, draw(st.integers(1, 3)) + 1):
        for breaks_off in [*draw(st.lists(st.just(True), max_size=2)), False]:
            attempt += 1
            pieces = draw(st.lists(st.text("ab ", min_size=1, max_size=3), max_size=4))
            told += [piece(text, step, attempt) for text in pieces if draw(st.booleans())]
            # A worker that dies says nothing of what it leaves.
            if breaks_off and draw(st.booleans()):
                told.append(("message.reset", {"step": step, "attempt": attempt}))
        told.append(whole("".join(pieces), step))
        texts += ["".join(pieces)] if pieces else []
    return told, texts


@given(steps())
def test_the_texts_in_the_end_are_those_that_are_stored(run: tuple[list[tuple[str, Json]], list[str]]) -> None:
    told, texts = run
    complete = log(*told, *DONE)

    assert agui(complete).texts == texts
    assert sdk(complete).texts == texts


@pytest.mark.parametrize("end", ["run.failed", "run.cancelled"])
def test_what_is_half_said_when_a_run_ends_is_void(end: str) -> None:
    told = log(piece("One two"), (end, {"reply_id": None, "error": "why"}))

    assert (agui(told).texts, sdk(told).texts) == ([], [])


def test_a_new_attempt_takes_the_place_of_one_that_was_not_taken_back() -> None:
    told = log(piece("One two"), piece("Three", attempt=2))

    assert agui(told).texts == sdk(told).texts == ["Three"]


def test_a_kind_of_call_event_that_is_not_known_is_passed_over() -> None:
    told = log(proposed(), outcome("moved_on", to="somewhere"), *DONE)

    assert sdk(told).calls == {"call_1": "tool-output-error"}


def test_an_apology_stands_alone() -> None:
    told = log(piece("One two"), whole("Sorry.", None), *DONE)

    assert agui(told).texts == sdk(told).texts == ["Sorry."]


def test_a_run_that_is_read_again_leaves_nothing_twice() -> None:
    told = log(piece("One two."), whole("One two."), proposed(), outcome("started", attempt=1))
    half = {"id": "run_1-1", "role": "assistant", "content": "One t"}
    screen = agui([*told, *log(outcome("succeeded", result="1", is_cut=False), *DONE)[2:]], half)

    assert [message["id"] for message in screen.messages] == ["u1", "run_1-1", "run_1-call_1"]
    assert screen.texts == ["One two."]


SETTLED = [
    (outcome("succeeded", result='{"a": 1}', is_cut=False), '{"a": 1}', "tool-output-available"),
    (outcome("failed", error="it broke"), '{"error": "it broke"}', "tool-output-error"),
    (outcome("denied", error="never"), '{"error": "never"}', "tool-output-error"),
    (outcome("expired", error="too late"), '{"error": "too late"}', "tool-output-error"),
    (outcome("rejected", error="no"), '{"error": "no"}', "tool-output-denied"),
]


@pytest.mark.parametrize(("settled", "content", "state"), SETTLED)
def test_what_became_of_a_call(settled: tuple[str, Json], content: str, state: str) -> None:
    told = log(proposed(), settled, piece("Done.", 2, 2), whole("Done.", 2), *DONE)

    assert [one["content"] for one in agui(told).messages if one["role"] == "tool"] == [content]
    assert sdk(told).calls == {"call_1": state}


def test_every_call_has_an_outcome_when_the_model_goes_on_or_the_run_ends() -> None:
    unknown = log(proposed(), outcome("started", attempt=1), outcome("ambiguous", error=None), piece("Well.", 2, 2))
    cancelled = log(proposed(), outcome("started", attempt=1), ("run.cancelled", {"reply_id": None, "error": None}))
    for told in (unknown, cancelled):
        (result,) = [one["content"] for one in agui(told).messages if one["role"] == "tool"]
        assert "outcome is unknown" in result
        assert sdk(told).calls == {"call_1": "tool-output-error"}


def test_a_call_that_a_person_answers_has_that_answer_as_its_result() -> None:
    told = log(proposed(), requested(), decided("respond", reason="It is blue."), outcome("rejected", error=None))
    story = Story()
    settled = [one for event in told for one in story.tell(event)][-1]

    assert settled == Settled("call_1", "pay", Outcome.RESULT, "It is blue.")


def test_who_is_asked_goes_on_behind_the_question() -> None:
    asked = log(piece("Let me see."), whole("Let me see."), proposed(), requested())
    rest = log(decided("approve"), outcome("started", attempt=1), outcome("succeeded", result="1", is_cut=False))[2:]
    rest += log(piece("Done.", 2, 2), whole("Done.", 2), *DONE)[2:]
    first = sdk(asked)
    run = AgUiRun(given_by())
    screen = AgUiScreen([{"id": "u1", "role": "user", "content": "hello"}])
    for event in asked:
        screen.show(run.on(event))

    resumed = agui([*asked, *rest], *screen.messages[1:], answered=("conf_1",))
    assert resumed.texts == ["Let me see.", "Done."]
    assert [one["id"] for one in resumed.messages] == ["u1", "run_1-1", "run_1-call_1", "run_1-2"]
    gone_on = sdk([*asked, *rest], ("conf_1",), first)
    assert (gone_on.id, gone_on.texts) == ("run_1", ["Let me see.", "Done."])
    assert gone_on.calls == {"call_1": "tool-output-available"}


def test_who_joins_a_run_is_told_what_it_does_from_then_on() -> None:
    before = log(piece("Let me see."), whole("Let me see."), proposed("call_0"), proposed(), requested())
    before += log(outcome("succeeded", "call_0", result="0", is_cut=False))[2:]
    rest = log(decided("approve"), outcome("started", attempt=1), outcome("succeeded", result="1", is_cut=False))[2:]
    rest += log(piece("Done.", 2, 2), whole("Done.", 2), *DONE)[2:]
    joined = [*(replace(told, hop=1, is_before=True) for told in before), *(replace(told, hop=1) for told in rest)]

    page = sdk(joined)
    assert (page.id, page.texts, page.calls) == ("run_1", ["Done."], {"call_1": "tool-output-available"})
    assert [part["type"] for part in page.parts] == ["step-start", "tool", "step-start", "text"]
    # Whether the client has seen what the run said before, or comes new to it.
    call = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    seen = {"id": "run_1-1", "role": "assistant", "content": "Let me see.", "toolCalls": [call]}
    for known, texts in (([seen], ["Let me see.", "Done."]), ([], ["Done."])):
        screen = agui(joined, *known)
        assert screen.texts == texts
        assert [one["id"] for one in screen.messages] == ["u1", "run_1-1", "run_1-call_1", "run_1-2"]
        assert [len(one["toolCalls"]) for one in screen.messages if one.get("toolCalls")] == [1]


@pytest.mark.parametrize(
    ("end", "texts"),
    [
        (DONE[0], ["Done."]),
        (("run.cancelled", {"reply_id": None, "error": "cancelled"}), []),
        (("run.failed", {"reply_id": None, "error": "why"}), []),
    ],
)
def test_of_a_run_that_is_not_theirs_a_reader_is_told_the_reply_alone(end: tuple[str, Json], texts: list[str]) -> None:
    step = [piece("Let me see."), whole("Let me see."), proposed(), outcome("succeeded", result="1", is_cut=False)]
    hidden = ReplyAlone()
    complete = log(*step, piece("Done.", 2, 2), whole("Done.", 2), end)
    told = [replace(one, event=event) for one in complete for event in hidden.take(one.event)]

    screen = agui(told)
    assert [one.event.type for one in told][:2] == ["run.queued", "run.started"]
    assert screen.texts == sdk(told).texts == texts
    assert (screen.last, sdk(told).calls) == ("RUN_ERROR" if end[0] == "run.failed" else "RUN_FINISHED", {})


def test_an_interrupt_says_what_an_answer_needs() -> None:
    run = AgUiRun(given_by())
    for event in log(proposed(), requested()):
        run.on(event)
    (finished,) = run.interrupt(run.story.questions())
    outcome_ = finished.model_dump(by_alias=True, mode="json")["outcome"]
    (interrupt,) = outcome_["interrupts"]

    assert outcome_["type"] == "interrupt"
    assert interrupt["id"] == f"conf_1.{'0' * 64}"
    assert (interrupt["toolCallId"], interrupt["expiresAt"]) == ("call_1", "2026-11-21T14:00:00+00:00")
    assert set(interrupt["responseSchema"]["properties"]) == {"approved", "reason", "editedArgs"}


def test_nobody_is_asked_about_arguments_that_they_do_not_see() -> None:
    kind, data = proposed()
    message, screen = UiMessage("run_1"), SdkScreen()
    for event in log((kind, {**data, "arguments": None}), requested()):
        screen.show(message.on(event))
    screen.show(message.interrupt(message.story.questions()))

    (part,) = [one for one in screen.parts if one["type"] == "tool"]
    assert (part["state"], part["input"]) == ("tool-approval-request", {"amount": 1})


def test_a_question_about_no_call_is_a_call_of_its_own_to_the_sdk() -> None:
    told = log(requested(None, kind="budget"))
    message, screen = UiMessage("run_1"), SdkScreen()
    for event in told:
        screen.show(message.on(event))
    screen.show(message.interrupt(message.story.questions()))
    assert screen.calls == {"conf_1": "tool-approval-request"}

    rest = log(decided("approve"), piece("Done."), whole("Done."), *DONE)[2:]
    gone_on = sdk([*told, *rest], ("conf_1",), screen)
    assert (gone_on.calls, gone_on.texts) == ({"conf_1": "tool-output-available"}, ["Done."])


def questions(*told: tuple[str, Json]) -> list[Question]:
    story = Story()
    for event in log(*told):
        story.tell(event)
    return story.questions()


def test_a_person_is_asked_everything_at_once_and_nothing_that_is_settled() -> None:
    both = (proposed("call_1"), proposed("call_2"))
    one, other = requested("call_1", "conf_1"), requested("call_2", "conf_2")

    assert questions(*both, one) == [], "it is not clear yet whether the other is asked for too"
    assert [asked.confirmation_id for asked in questions(*both, one, other)] == ["conf_1", "conf_2"]
    assert [asked.confirmation_id for asked in questions(*both, one, other, decided("approve"))] == ["conf_2"]
    assert questions(proposed(), outcome("started", attempt=1), requested(kind="outcome")) == []

    story = Story()
    for event in log(*both, one, other):
        story.tell(event)
    later = log(decided("reject", "conf_2"))
    assert [asked.confirmation_id for asked in story.questions_after(one.event for one in later)] == ["conf_1"]


def test_who_comes_back_to_a_log_that_is_gone_is_told_its_end() -> None:
    told = log(whole("Done.", None), *DONE)

    assert agui(told, answered=("conf_1",)).last == "RUN_FINISHED"
    left_over = log(piece("Do"))[2:]
    assert agui([*left_over, *told]).texts == sdk([*left_over, *told]).texts == ["Done."]
