"""A run as AG-UI 1.0 tells it.

A text that turns out to be void is closed, and a snapshot of the messages without it takes it from the screen: nothing
else in the protocol takes a message back. A question ends the client's run with an interrupt; the answer comes with a
run of its own, which goes on where that one ended.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from ag_ui.core import (
    PROTOCOL_VERSION,
    AssistantMessage,
    BaseEvent,
    FunctionCall,
    Interrupt,
    Message,
    MessagesSnapshotEvent,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCall,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    ToolMessage,
)

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
from holdfast.domain.confirmations import ConfirmationKind

#: What an answer to an interrupt looks like: `payload` of a resume entry that is resolved.
RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "reason": {"type": "string", "maxLength": 2000, "description": "the model is told"},
        "editedArgs": {"type": "object", "description": "other arguments, with which the call is approved"},
    },
    "required": ["approved"],
    "additionalProperties": False,
}

#: The same, where there are no arguments to edit.
_YES_OR_NO: dict[str, Any] = {
    **RESPONSE_SCHEMA,
    "properties": {name: part for name, part in RESPONSE_SCHEMA["properties"].items() if name != "editedArgs"},
}


class AgUiRun(Projection[BaseEvent]):
    """One run of an AG-UI client: what it was given, and the story that it is told."""

    def __init__(self, given: RunAgentInput, answered: Collection[str] = ()) -> None:
        super().__init__(answered)
        self._given = given
        self._messages: list[Message] = []

    def begin(self, run_id: str, conversation_id: str) -> list[BaseEvent]:
        """The run begins; `run_id` is ours."""
        ours = {"run_id": run_id, "conversation_id": conversation_id}
        return [
            RunStartedEvent(
                thread_id=self._given.thread_id,
                run_id=self._given.run_id,
                protocol_version=PROTOCOL_VERSION,
                metadata={"holdfast": ours},
            )
        ]

    def interrupt(self, questions: list[Question]) -> list[BaseEvent]:
        """The run ends with what it needs from a person."""
        return [self._finish(RunFinishedInterruptOutcome(interrupts=[_interrupt(asked) for asked in questions]))]

    def cut_off(self) -> list[BaseEvent]:
        """The stream ends before the run does."""
        return [RunErrorEvent(message="The stream ended early; run again with the same runId.", code="cut_off")]

    def _take_up(self) -> Iterator[BaseEvent]:
        """Go on from the client's messages, without those of this run that it does not know to stand.

        It has such ones when it was cut off, and asks again.
        """
        standing = {message.id for message in self._messages}
        own = f"{self.story.run_id}-"
        self._messages = [one for one in self._given.messages if one.id in standing or not one.id.startswith(own)]
        if len(self._messages) < len(self._given.messages):
            yield self._snapshot()
        if not self._goes_on:
            self._shown &= {call.id for one in self._messages for call in getattr(one, "tool_calls", None) or ()}

    def _say_text(self, part: TextBegan | TextPiece | TextEnded | TextVoid) -> Iterator[BaseEvent]:
        message_id = self._id(part.step)
        match part:
            case TextBegan():
                self._messages.append(AssistantMessage(id=message_id, content=""))
                yield TextMessageStartEvent(message_id=message_id, role="assistant")
            case TextPiece():
                message = self._assistant(message_id)
                message.content = f"{message.content or ''}{part.text}"
                yield TextMessageContentEvent(message_id=message_id, delta=part.text)
            case TextEnded():
                yield TextMessageEndEvent(message_id=message_id)
            case TextVoid():
                self._messages = [one for one in self._messages if one.id != message_id]
                yield TextMessageEndEvent(message_id=message_id)
                yield self._snapshot()

    def _say_call(self, part: CallProposed) -> Iterator[BaseEvent]:
        message_id, key = self._id(part.step), part.tool_call_id
        arguments = "" if part.arguments is None else json.dumps(part.arguments)
        message = self._assistant(message_id)
        call = ToolCall(id=key, function=FunctionCall(name=part.tool, arguments=arguments))
        message.tool_calls = [*(message.tool_calls or []), call]
        yield ToolCallStartEvent(tool_call_id=key, tool_call_name=part.tool, parent_message_id=message_id)
        if arguments:
            yield ToolCallArgsEvent(tool_call_id=key, delta=arguments)
        yield ToolCallEndEvent(tool_call_id=key)

    def _say_outcome(self, part: Settled) -> Iterator[BaseEvent]:
        message_id = self._id(part.tool_call_id)
        if any(message.id == message_id for message in self._messages):
            return
        content = part.text if part.outcome is Outcome.RESULT else json.dumps({"error": part.text})
        self._messages.append(ToolMessage(id=message_id, content=content, tool_call_id=part.tool_call_id))
        yield ToolCallResultEvent(message_id=message_id, tool_call_id=part.tool_call_id, content=content)

    def _end(self, part: Ended) -> Iterator[BaseEvent]:
        match part.end:
            case End.COMPLETED:
                yield self._finish(RunFinishedSuccessOutcome())
            case End.CANCELLED:
                yield self._finish(RunFinishedCancelledOutcome())
            case End.FAILED:
                yield RunErrorEvent(message=f"The run failed: {part.why or 'unexpected error'}.", code="run_failed")

    def _finish(self, outcome: Any) -> BaseEvent:
        return RunFinishedEvent(thread_id=self._given.thread_id, run_id=self._given.run_id, outcome=outcome)

    def _snapshot(self) -> BaseEvent:
        return MessagesSnapshotEvent(messages=self._messages)

    def _assistant(self, message_id: str) -> AssistantMessage:
        for message in self._messages:
            if message.id == message_id and isinstance(message, AssistantMessage):
                return message
        made = AssistantMessage(id=message_id)
        self._messages.append(made)
        return made

    def _id(self, part: str) -> str:
        # Ids of the run alone, so that whoever reads it again is told the same ones.
        return f"{self.story.run_id}-{part}"


def _interrupt(asked: Question) -> Interrupt:
    is_call = asked.kind == ConfirmationKind.CALL
    return Interrupt(
        id=asked.answered_by,
        reason="tool_call" if is_call else asked.kind,
        message=f"{asked.tool} waits for your confirmation: {asked.rule}",
        tool_call_id=asked.tool_call_id,
        response_schema=RESPONSE_SCHEMA if is_call else _YES_OR_NO,
        expires_at=asked.deadline,
        metadata={
            "confirmation_id": asked.confirmation_id,
            "tool": asked.tool,
            "arguments": asked.arguments,
            "on_deadline": asked.on_deadline,
        },
    )
