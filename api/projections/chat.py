"""A run's event log as OpenAI's chat completions: pieces of one text, and calls of the client's own tools.

The protocol has one text and no way to take any of it back: what several steps say is one text in paragraphs, and what
turns out void (`message.reset`) stays, followed by what is said instead. Clients put the pieces together and are told
nothing else, so that pieces that got lost are told with the whole text.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.projections.partial_text import PartialText
from api.projections.responses import waiting_text
from holdfast.domain.events import TERMINAL, MessageCompleted, MessageDelta, MessageReset, ToolCallHandedOver
from holdfast.domain.model_calls import Usage
from holdfast.domain.progress import Progress
from holdfast.services.run_events import Told

Json = dict[str, Any]

#: Between what two steps say.
_PARAGRAPH = "\n\n"


@dataclass(frozen=True)
class ChatHead:
    """What a completion says of its request."""

    run_id: str
    agent: str
    created_at: datetime

    def chunk(self, delta: Json | None, finish_reason: str | None = None, usage: Usage | None = None) -> Json:
        """A piece of a stream; without a delta, the one that has the usage."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        found = self._as("chat.completion.chunk", [] if delta is None else [choice])
        return found if usage is None else {**found, "usage": _as_usage(usage)}

    def completion(self, message: Json, finish_reason: str, usage: Usage) -> Json:
        """The whole."""
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._as("chat.completion", [choice]), "usage": _as_usage(usage)}

    def _as(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self.run_id.removeprefix('run_')}",
            "object": kind,
            "created": int(self.created_at.timestamp()),
            "model": self.agent,
            "choices": choices,
        }


class ChatStream:
    """Takes what is told on the way to an answer; answers with deltas, to be sent one after the other.

    `is_quiet`: the run waits for a person, and for nothing else. `is_over`: it has ended. `is_whole`: nothing more
    belongs to the answer, since the run has ended, or what it waits for was said.
    """

    def __init__(self, run_id: str) -> None:
        self._progress = Progress()
        self._texts: list[str] = []
        self._open = PartialText()
        self._has_said = False
        self.run_id = run_id
        self.calls: list[Json] = []
        self.is_over = False
        self.is_whole = False
        self.first_step = 0

    @property
    def is_quiet(self) -> bool:
        return self._progress.is_quiet and not self.is_over

    @property
    def last_step(self) -> int | None:
        """The newest model call that belongs to the answer; None: whichever is the run's last."""
        return self._progress.step if self.is_quiet else None

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.calls else "stop"

    @property
    def message(self) -> Json:
        """The whole message, without what was void."""
        text = _PARAGRAPH.join(self._texts)
        found: Json = {"role": "assistant", "content": text or None, "refusal": None}
        if self.calls:
            found["tool_calls"] = [{name: call[name] for name in call if name != "index"} for call in self.calls]
        return found

    def take(self, told: Told) -> list[Json]:
        """What follows from the next event of the log."""
        if told.run_id != self.run_id:
            self.run_id, self._progress = told.run_id, Progress()
        kind, data = told.event.type, json.loads(told.event.data)
        self._progress.take(kind, data)
        if told.is_before:
            self.first_step = self._progress.step
            return []
        self.is_over = self.is_whole = kind in TERMINAL
        match kind:
            case MessageDelta.TYPE:
                begins = not self._open.told
                return self._say(self._open.add(data["step"], data["text"]), begins=begins)
            case MessageReset.TYPE:
                self._open = PartialText()
            case MessageCompleted.TYPE:
                return self._complete(data["text"])
            case ToolCallHandedOver.TYPE:
                return [self._call(data)]
        return []

    def wait_no_longer(self) -> list[Json]:
        """Say what waits for a person, and leave it at that."""
        self.is_whole = True
        return [delta for asked in self._progress.waiting.values() for delta in self._complete(waiting_text(asked))]

    def close(self, reply: str | None) -> list[Json]:
        """End the answer of a run whose log is gone, with what is kept of it."""
        self.is_over = self.is_whole = True
        return self._complete(reply) if reply and not self._texts else []

    def _say(self, text: str, *, begins: bool) -> list[Json]:
        if not text:
            return []
        opening = _PARAGRAPH if begins and self._has_said else ""
        self._has_said = True
        return [{"content": opening + text}]

    def _complete(self, text: str) -> list[Json]:
        rest, begins = self._open.rest(text), not self._open.told
        self._open = PartialText()
        self._texts.append(text)
        return self._say(text, begins=True) if rest is None else self._say(rest, begins=begins)

    def _call(self, data: Json) -> Json:
        function = {"name": data["tool"], "arguments": data["arguments"]}
        call = {"index": len(self.calls), "id": data["tool_call_id"], "type": "function", "function": function}
        self.calls.append(call)
        return {"tool_calls": [call]}


def _as_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
