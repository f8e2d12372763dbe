"""A run's event log as OpenAI's Responses: the events of a stream, and the response that they lead to.

Everything follows from the log: the same events come, under the same `sequence_number`, on any process and at any time.
A number is made of that of the log's event, times `SPREAD`, so that a piece of text which is not kept for ever takes
only its own numbers with it; numbers therefore have gaps.

Text that turns out void (`message.reset`) can't be taken back in this protocol. Its item ends `incomplete`, and has no
content in the response; what is said instead is an item of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from api.projections.partial_text import PartialText
from holdfast.domain.events import (
    MessageCompleted,
    MessageDelta,
    MessageReset,
    RunCancelled,
    RunCompleted,
    RunFailed,
    ToolCallHandedOver,
    ToolCallStarted,
    ToolCallSucceeded,
)
from holdfast.domain.exchanges import Place, approval_id
from holdfast.domain.model_calls import Usage
from holdfast.domain.progress import UNSUCCESSFUL, Progress
from holdfast.services.run_events import Told

#: How many numbers an event of the log has for events of the stream; and those of the log of one run.
SPREAD = 256
_OF_A_LOG = 2**40

#: The number of the end of an answer whose log is gone: above whatever was read of it, for who comes back for the rest.
_LAST = 2**53 - 1

#: Whose tools they are that run here, where OpenAI names an MCP server.
SERVER = "holdfast"

Json = dict[str, Any]

_STATUS = {RunCompleted.TYPE: "completed", RunFailed.TYPE: "failed", RunCancelled.TYPE: "cancelled"}

#: There is no event for a response that was cancelled.
_LAST_EVENT = {"completed": "completed", "failed": "failed", "cancelled": "incomplete"}


@dataclass(frozen=True)
class Head:
    """What a response says of its request."""

    place: Place
    agent: str
    conversation_id: str
    created_at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()


class ResponseStream:
    """Takes what is told on the way to an answer; answers with the events of the stream.

    `status` is the response's. `is_over`: nothing more belongs to it; `last_event` closes the stream then.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._progress = Progress()
        self._output: list[Json] = []
        self._partial = PartialText()
        self._open_text: int | None = None
        self._voids = 0
        self._calls: dict[str, int] = {}
        self._number = head.place.after * SPREAD
        self._error: str | None = None
        self.status = "in_progress"
        self.run_id = head.place.run_id
        self.first_step = 0

    @property
    def is_over(self) -> bool:
        return self.status != "in_progress"

    @property
    def last_step(self) -> int | None:
        """The newest model call that belongs to the answer; None: whichever is the run's last."""
        return None if self._error or not self._progress.is_quiet else self._progress.step

    def begin(self) -> list[Json]:
        """What comes before anything has happened."""
        return [self._event(f"response.{name}", response=self.response()) for name in ("created", "in_progress")]

    def take(self, told: Told) -> list[Json]:
        """What follows from the next event of the log."""
        if told.run_id != self.run_id:
            self.run_id, self._progress = told.run_id, Progress()
        self._number = told.hop * _OF_A_LOG + told.event.seq * SPREAD
        kind, data = told.event.type, json.loads(told.event.data)
        self._progress.take(kind, data)
        if told.is_before:
            self.first_step = self._progress.step
            return []
        events = self._tell(kind, data)
        if kind in _STATUS or self._progress.is_quiet:
            events += self._end(kind, data)
        return events

    def close(self, status: str, reply: str | None, error: str | None) -> list[Json]:
        """End the answer of a run whose log is gone, with what is kept of it."""
        events = self._whole_text("0", reply) if reply else []
        self._error, self.status, self._number = error, status, _LAST
        return events

    def last_event(self, usage: Usage) -> Json:
        """The end of the stream."""
        return self._event(f"response.{_LAST_EVENT[self.status]}", response=self.response(usage))

    def response(self, usage: Usage | None = None) -> Json:
        """The response as it stands."""
        failed = {"code": "server_error", "message": self._error or "The run failed."}
        return {
            "id": self._head.place.response_id,
            "object": "response",
            "created_at": int(self._head.created_at.timestamp()),
            "status": self.status,
            "error": failed if self.status == "failed" else None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": dict(self._head.metadata),
            "model": self._head.agent,
            "output": [dict(item) for item in self._output],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [_as_tool(tool) for tool in self._head.tools],
            "conversation": {"id": self._head.conversation_id},
            "usage": None if usage is None else _as_usage(usage),
        }

    def _tell(self, kind: str, data: Json) -> list[Json]:
        match kind:
            case MessageDelta.TYPE:
                return self._text(str(data["step"]), self._partial.add(data["step"], data["text"]))
            case MessageReset.TYPE:
                return self._void(str(data["step"]))
            case MessageCompleted.TYPE:
                return self._whole_text(str(data["step"] or 0), data["text"])
            case ToolCallHandedOver.TYPE:
                return self._function_call(data)
            case ToolCallStarted.TYPE:
                return self._start(data)
            case ToolCallSucceeded.TYPE:
                return self._finish(data, "completed", output=data["result"])
            case _ if kind in UNSUCCESSFUL:
                return self._finish(data, "failed", error=data["error"] or kind.removeprefix("tool_call."))
        return []

    def _end(self, kind: str, data: Json) -> list[Json]:
        self.status = _STATUS.get(kind, "completed")
        self._error = data.get("error") if kind == RunFailed.TYPE else None
        cut_off = [] if self._open_text is None else self._close_text(status="incomplete")
        return cut_off + [event for asked in self._progress.waiting.values() for event in self._ask(asked)]

    # What is added to the output, in its order.

    def _text(self, step: str, text: str) -> list[Json]:
        if not text:
            return []
        opened = self._open_message(step) if self._open_text is None else []
        return [*opened, self._of_part("response.output_text.delta", self._opened_text, delta=text, logprobs=[])]

    def _open_message(self, step: str) -> list[Json]:
        name = f"msg_{self.run_id.removeprefix('run_')}_{step}" + (f"_{self._voids}" if self._voids else "")
        item = {"id": name, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        added = self._add(item)
        self._open_text = len(self._output) - 1
        return [added, self._of_part("response.content_part.added", self._open_text, part=_part(""))]

    def _void(self, step: str) -> list[Json]:
        opened = self._open_message(step) if self._open_text is None else []
        self._voids += 1
        return [*opened, *self._close_text(status="incomplete")]

    def _whole_text(self, step: str, text: str) -> list[Json]:
        rest = self._partial.rest(text)
        void = self._void(step) if rest is None else []
        missing = self._text(step, text if rest is None else rest)
        index = self._opened_text
        self._voids = 0
        return [
            *void,
            *missing,
            self._of_part("response.output_text.done", index, text=text, logprobs=[]),
            self._of_part("response.content_part.done", index, part=_part(text)),
            *self._close_text(status="completed", content=[_part(text)]),
        ]

    def _close_text(self, **changed: Any) -> list[Json]:
        index, self._open_text, self._partial = self._opened_text, None, PartialText()
        return [self._done(index, **changed)]

    def _function_call(self, data: Json) -> list[Json]:
        call_id, name, arguments = data["tool_call_id"], data["tool"], data["arguments"]
        item = {"id": f"fc_{_ulid(call_id)}", "type": "function_call", "call_id": call_id, "name": name}
        added = self._add({**item, "arguments": "", "status": "in_progress"})
        index = len(self._output) - 1
        return [
            added,
            self._of_item("response.function_call_arguments.delta", index, delta=arguments),
            self._of_item("response.function_call_arguments.done", index, name=name, arguments=arguments),
            self._done(index, status="completed", arguments=arguments),
        ]

    def _start(self, data: Json, *, is_run: bool = True) -> list[Json]:
        call_id = data["tool_call_id"]
        if call_id in self._calls:
            return []
        asked = self._progress.asked.get(call_id)
        arguments = _as_json(self._progress.arguments.get(call_id) or {})
        begun = sum(str(item["id"]).startswith(f"mcp_{_ulid(call_id)}") for item in self._output)
        item = {
            "id": f"mcp_{_ulid(call_id)}" + (f"_{begun + 1}" if begun else ""),
            "type": "mcp_call",
            "server_label": SERVER,
            "name": data["tool"],
            "arguments": arguments,
            "approval_request_id": None if asked is None else _approval_id(asked),
            "output": None,
            "error": None,
            "status": "in_progress",
        }
        added = self._add(item)
        index = self._calls[call_id] = len(self._output) - 1
        if not is_run:
            return [added]
        return [
            added,
            self._of_item("response.mcp_call_arguments.done", index, arguments=arguments),
            self._of_item("response.mcp_call.in_progress", index),
        ]

    def _finish(self, data: Json, status: str, *, output: str | None = None, error: str | None = None) -> list[Json]:
        started = self._start(data, is_run=False)
        index = self._calls.pop(data["tool_call_id"])
        return [
            *started,
            self._of_item(f"response.mcp_call.{status}", index),
            self._done(index, status=status, output=output, error=error),
        ]

    def _ask(self, asked: Mapping[str, Any]) -> list[Json]:
        if asked["kind"] == "outcome":
            return self._whole_text(asked["confirmation_id"].removeprefix("conf_"), waiting_text(asked))
        item = {
            "id": _approval_id(asked),
            "type": "mcp_approval_request",
            "server_label": SERVER,
            "name": asked["tool"],
            "arguments": _as_json(asked["arguments"]),
        }
        return [self._add(item), self._done(len(self._output) - 1)]

    # How events are made.

    @property
    def _opened_text(self) -> int:
        assert self._open_text is not None
        return self._open_text

    def _add(self, item: Json) -> Json:
        self._output.append(item)
        index = len(self._output) - 1
        return self._event("response.output_item.added", output_index=index, item=dict(item))

    def _done(self, index: int, **changed: Any) -> Json:
        self._output[index] |= changed
        return self._event("response.output_item.done", output_index=index, item=dict(self._output[index]))

    def _of_item(self, kind: str, index: int, **others: Any) -> Json:
        return self._event(kind, output_index=index, item_id=self._output[index]["id"], **others)

    def _of_part(self, kind: str, index: int, **others: Any) -> Json:
        return self._of_item(kind, index, content_index=0, **others)

    def _event(self, kind: str, **others: Any) -> Json:
        event = {"type": kind, "sequence_number": self._number, **others}
        self._number += 1
        return event


def waiting_text(asked: Mapping[str, Any]) -> str:
    """In words, what waits for a person; it ends with the confirmation's id."""
    until = asked["deadline"]
    if asked["kind"] == "outcome":
        return (
            f"What became of {asked['tool']} is unknown, and a person must say it (POST /v1/tool-calls/"
            f"{asked['tool_call_id']}/resolution) by {until}. Confirmation: {asked['confirmation_id']}"
        )
    # In a fence of lines of their own, which nothing in one line of JSON can close or hide.
    arguments = f"```json\n{_as_visible(_as_json(asked['arguments']))}\n```"
    what = f"A person must confirm {asked['tool']} by {until}, else: {asked['on_deadline']}. It would run with"
    return f"{what}\n\n{arguments}\n\nConfirmation: {asked['confirmation_id']}"


def _approval_id(asked: Mapping[str, Any]) -> str:
    return approval_id(asked["confirmation_id"], asked["arguments_digest"])


def _ulid(tool_call_id: str) -> str:
    return tool_call_id.removeprefix("call_")


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as_visible(text: str) -> str:
    """JSON with whatever a screen hides or turns round written out."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _as_tool(tool: Mapping[str, Any]) -> Json:
    return {"type": "function", "strict": False, **tool}


def _as_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
