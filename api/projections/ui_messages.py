"""A run as the UI message stream of the Vercel AI SDK tells it (`x-vercel-ai-ui-message-stream: v1`).

A run is one message of the assistant, whose id is the run's; each model call is a step of it. A text that turns out to
be void is taken from the screen by `reset-step`. A question ends the stream; the answer comes with a request of its
own, and the message goes on where it was.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from api.projections.story import (
    Began,
    CallProposed,
    End,
    Ended,
    Outcome,
    Question,
    Settled,
    Story,
    TextBegan,
    TextEnded,
    TextPiece,
    TextVoid,
    Told,
)
from holdfast.domain.events import LoggedEvent

#: A part of the stream, as JSON.
Chunk = dict[str, Any]

# The client's code knows none of our tools by type, and is to execute none of them.
_OURS = {"dynamic": True, "providerExecuted": True}


class UiMessage:
    """One message of an AI SDK client, told from its beginning, or from the questions on that are answered."""

    def __init__(self, answered: Collection[str] = ()) -> None:
        self.story = Story(answered)
        self._conversation_id = ""
        self._step: str | None = None
        self._is_in_step = False
        # What the client has parts of: it takes the outcome of nothing else.
        self._shown = set(answered)
        # Calls whose arguments are too long to be told with the proposal.
        self._long: set[str] = set()

    def on(self, event: LoggedEvent) -> list[Chunk]:
        """What the client is told of an event."""
        was_known = self.story.is_known
        told = [said for one in self.story.tell(event) for said in self._say(one)]
        if not was_known:
            return told
        if self.story.is_known:
            return []
        self._is_in_step = False
        return [self._start(), *told]

    def interrupt(self, questions: list[Question]) -> list[Chunk]:
        """The stream ends with what the run needs from a person."""
        asked = [chunk for question in questions for chunk in self._ask(question)]
        return [*asked, *self._finish_step(), {"type": "finish", "finishReason": "tool-calls"}]

    def cut_off(self) -> list[Chunk]:
        """The stream ends before the run does."""
        return [{"type": "error", "errorText": "The stream ended early; resume it."}]

    def _start(self) -> Chunk:
        ours = {"runId": self.story.run_id, "conversationId": self._conversation_id}
        return {"type": "start", "messageId": self.story.run_id, "messageMetadata": ours}

    def _say(self, told: Told) -> Iterator[Chunk]:
        match told:
            case Began():
                self._conversation_id = told.conversation_id
                yield self._start()
            case TextBegan() | TextPiece() | TextEnded() | TextVoid():
                yield from self._say_text(told)
            case CallProposed():
                yield from self._begin_step(told.step)
                yield self._call(told.tool_call_id, told.tool, told.arguments or {})
                if told.arguments is None:
                    self._long.add(told.tool_call_id)
            case Settled():
                yield from self._say_outcome(told)
            case Ended():
                yield from self._end(told)

    def _say_text(self, told: TextBegan | TextPiece | TextEnded | TextVoid) -> Iterator[Chunk]:
        key = f"{self.story.run_id}-{told.step}"
        match told:
            case TextBegan():
                yield from self._begin_step(told.step)
                yield {"type": "text-start", "id": key}
            case TextPiece():
                yield {"type": "text-delta", "id": key, "delta": told.text}
            case TextEnded():
                yield {"type": "text-end", "id": key}
            case TextVoid():
                # All of the step: a step's calls are not known before its text is whole.
                yield {"type": "reset-step"}

    def _call(self, key: str, tool: str, arguments: dict[str, Any]) -> Chunk:
        self._shown.add(key)
        return {"type": "tool-input-available", "toolCallId": key, "toolName": tool, "input": arguments, **_OURS}

    def _ask(self, asked: Question) -> Iterator[Chunk]:
        key = asked.tool_call_id
        if key is None:
            key = asked.confirmation_id
            yield from self._begin_step(self._step or key)
        if asked.tool_call_id is None or key in self._long:
            # Nobody is asked about arguments that they don't see.
            yield self._call(key, asked.tool, asked.arguments)
        yield {
            "type": "tool-approval-request",
            "approvalId": asked.answered_by,
            "toolCallId": key,
            "reason": asked.rule,
            "approvalDescriptor": {
                "confirmation_id": asked.confirmation_id,
                "deadline": asked.deadline,
                "on_deadline": asked.on_deadline,
            },
        }

    def _say_outcome(self, told: Settled) -> Iterator[Chunk]:
        key = told.tool_call_id
        if key not in self._shown:
            return
        match told.outcome:
            case Outcome.RESULT:
                yield {"type": "tool-output-available", "toolCallId": key, "output": _value(told.text), **_OURS}
            case Outcome.REFUSED:
                yield {"type": "tool-output-denied", "toolCallId": key}
            case Outcome.ERROR:
                yield {"type": "tool-output-error", "toolCallId": key, "errorText": told.text, **_OURS}

    def _begin_step(self, step: str) -> Iterator[Chunk]:
        if step != self._step:
            yield from self._finish_step()
            yield {"type": "start-step"}
            self._step, self._is_in_step = step, True

    def _finish_step(self) -> Iterator[Chunk]:
        if self._is_in_step:
            self._is_in_step = False
            yield {"type": "finish-step"}

    def _end(self, told: Ended) -> Iterator[Chunk]:
        if told.end is End.FAILED:
            yield {"type": "error", "errorText": f"The run failed: {told.why or 'unexpected error'}."}
            return
        yield from self._finish_step()
        if told.end is End.CANCELLED:
            yield {"type": "abort", "reason": told.why or "cancelled"}
        else:
            yield {"type": "finish", "finishReason": "stop"}


def _value(text: str) -> Any:
    """A result as JSON; as text, if it is none or was cut."""
    try:
        return json.loads(text)
    except ValueError:
        return text
