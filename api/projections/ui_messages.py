"""A run as the UI message stream of the Vercel AI SDK tells it (`x-vercel-ai-ui-message-stream: v1`).

An answer is one message of the assistant, by the id of its question's run; each model call is a step of it. A text that
turns out to be void is taken from the screen by `reset-step`. A question ends the stream; the answer comes with a
request of its own, and the message goes on where it was.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from api.projections.projection import Projection
from api.projections.story import (
    CallProposed,
    End,
    Ended,
    Outcome,
    Question,
    Settled,
    TextBegan,
    TextEnded,
    TextPiece,
    TextVoid,
)

#: A part of the stream, as JSON.
Chunk = dict[str, Any]

# The client's code knows none of our tools by type, and is to execute none of them.
_OURS = {"dynamic": True, "providerExecuted": True}


class UiMessage(Projection[Chunk]):
    """One message of an AI SDK client, told from its beginning, or from the questions on that are answered."""

    def __init__(self, message_id: str, answered: Collection[str] = ()) -> None:
        super().__init__(answered)
        self._message_id = message_id
        self._step: str | None = None
        self._is_in_step = False
        # A question about no call is shown as one, by its own id.
        self._shown.update(answered)

    def interrupt(self, questions: list[Question]) -> list[Chunk]:
        """The stream ends with what the run needs from a person."""
        asked = [chunk for question in questions for chunk in self._ask(question)]
        return [*asked, *self._finish_step(), {"type": "finish", "finishReason": "tool-calls"}]

    def cut_off(self) -> list[Chunk]:
        """The stream ends before the run does."""
        return [{"type": "error", "errorText": "The stream ended early; resume it."}]

    def _take_up(self) -> Iterator[Chunk]:
        if not self._goes_on:
            # What was told before, if anything, stands in another message.
            self._shown.clear()
            self._step = None
        self._is_in_step = False
        ours = {"runId": self.story.run_id, "conversationId": self.story.conversation_id}
        yield {"type": "start", "messageId": self._message_id, "messageMetadata": ours}

    def _say_text(self, part: TextBegan | TextPiece | TextEnded | TextVoid) -> Iterator[Chunk]:
        key = f"{self.story.run_id}-{part.step}"
        match part:
            case TextBegan():
                yield from self._begin_step(part.step)
                yield {"type": "text-start", "id": key}
            case TextPiece():
                yield {"type": "text-delta", "id": key, "delta": part.text}
            case TextEnded():
                yield {"type": "text-end", "id": key}
            case TextVoid():
                # All of the step: a step's calls are not known before its text is whole.
                yield {"type": "reset-step"}

    def _say_call(self, part: CallProposed) -> Iterator[Chunk]:
        yield from self._begin_step(part.step)
        yield _call(part.tool_call_id, part.tool, part.arguments or {})

    def _ask(self, asked: Question) -> Iterator[Chunk]:
        key = asked.tool_call_id or asked.confirmation_id
        if not self._has_arguments(key):
            # Nobody is asked about arguments that they don't see.
            self._shown.add(key)
            yield from self._begin_step(self._step or key)
            yield _call(key, asked.tool, asked.arguments)
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

    def _has_arguments(self, key: str) -> bool:
        # Long ones are not told with the proposal.
        return key in self._shown and key in self._proposed and self._proposed[key].arguments is not None

    def _say_outcome(self, part: Settled) -> Iterator[Chunk]:
        key = part.tool_call_id
        match part.outcome:
            case Outcome.RESULT:
                yield {"type": "tool-output-available", "toolCallId": key, "output": _value(part.text), **_OURS}
            case Outcome.REFUSED:
                yield {"type": "tool-output-denied", "toolCallId": key}
            case Outcome.ERROR:
                yield {"type": "tool-output-error", "toolCallId": key, "errorText": part.text, **_OURS}

    def _begin_step(self, step: str) -> Iterator[Chunk]:
        if step != self._step:
            yield from self._finish_step()
            yield {"type": "start-step"}
            self._step, self._is_in_step = step, True

    def _finish_step(self) -> Iterator[Chunk]:
        if self._is_in_step:
            self._is_in_step = False
            yield {"type": "finish-step"}

    def _end(self, part: Ended) -> Iterator[Chunk]:
        if part.end is End.FAILED:
            yield {"type": "error", "errorText": f"The run failed: {part.why or 'unexpected error'}."}
            return
        yield from self._finish_step()
        if part.end is End.CANCELLED:
            yield {"type": "abort", "reason": part.why or "cancelled"}
        else:
            yield {"type": "finish", "finishReason": "stop"}


def _call(key: str, tool: str, arguments: dict[str, Any]) -> Chunk:
    return {"type": "tool-input-available", "toolCallId": key, "toolName": tool, "input": arguments, **_OURS}


def _value(text: str) -> Any:
    """A result as JSON; as text, if it is none or was cut."""
    try:
        return json.loads(text)
    except ValueError:
        return text
