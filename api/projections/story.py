"""A run's log as a reader follows it on a screen: texts that stand, calls and what became of them, open questions.

The log tells more than a screen needs, and some of it late: pieces of text that turn out to be void, or get lost. A
story tells only what holds, and takes back what does not. The protocols of chat clients are spellings of a story.

A reader who was asked something and comes back with the answer knows the story up to that question: what comes before
is not told again, only remembered. Nor is what a run has told before the reader's message joined it.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from holdfast.domain.confirmations import ConfirmationKind
from holdfast.domain.events import LoggedEvent
from holdfast.domain.messages import NO_RESULT, OUTCOME_UNKNOWN
from holdfast.services.run_events import Told

#: What stands in place of a step's number for a text that no model wrote.
APOLOGY = "apology"


@dataclass(frozen=True)
class Question:
    """A confirmation that waits for a person, as its event tells it."""

    confirmation_id: str
    kind: str
    tool_call_id: str | None
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    rule: str
    deadline: str
    on_deadline: str

    @property
    def answered_by(self) -> str:
        """By which id an answer names the question: it says which arguments the person was shown."""
        return f"{self.confirmation_id}.{self.arguments_digest}"


@dataclass(frozen=True)
class Began:
    """The run has the turn."""


@dataclass(frozen=True)
class TextBegan:
    """The text of a step begins, or begins anew."""

    step: str


@dataclass(frozen=True)
class TextPiece:
    """More of the text."""

    step: str
    text: str


@dataclass(frozen=True)
class TextEnded:
    """The text is whole, and is the one that is stored."""

    step: str


@dataclass(frozen=True)
class TextVoid:
    """What was told of the text since it began is void."""

    step: str


@dataclass(frozen=True)
class CallProposed:
    """The model wants a call."""

    tool_call_id: str
    step: str
    tool: str
    arguments: dict[str, Any] | None


class Outcome(StrEnum):
    """What became of a call, or of a question that is about none."""

    RESULT = "result"  #: it returned, or a person answered in its place
    REFUSED = "refused"  #: a person said no
    ERROR = "error"  #: it failed, was not run, or nobody knows


@dataclass(frozen=True)
class Settled:
    """What became of a call. `text`: the result, or why there is none. A question about no call goes by its own id."""

    tool_call_id: str
    tool: str
    outcome: Outcome
    text: str


class End(StrEnum):
    """How a run ended."""

    COMPLETED = "run.completed"
    FAILED = "run.failed"
    CANCELLED = "run.cancelled"


@dataclass(frozen=True)
class Ended:
    """The run has ended. `why`: in a word, if there is something to say."""

    end: End
    why: str | None


Part = Began | TextBegan | TextPiece | TextEnded | TextVoid | CallProposed | Settled | Ended

_SETTLED = {
    "tool_call.succeeded": Outcome.RESULT,
    "tool_call.failed": Outcome.ERROR,
    "tool_call.denied": Outcome.ERROR,
    "tool_call.expired": Outcome.ERROR,
    "tool_call.withdrawn": Outcome.ERROR,
    "tool_call.rejected": Outcome.REFUSED,
}

_SETTLING = frozenset({"confirmation.decided", "confirmation.expired", "confirmation.withdrawn"})


@dataclass
class _Call:
    tool: str
    is_clear: bool = False  #: whether it was started, or a person is asked
    is_started: bool = False
    is_ambiguous: bool = False


class Story:
    """Tells a run's log, event by event. `answered`: the confirmations that the reader comes back to."""

    def __init__(self, answered: Collection[str] = ()) -> None:
        self._unheard = set(answered)
        self._is_before = False
        self._start("", "")

    def _start(self, run_id: str, conversation_id: str) -> None:
        self.run_id = run_id
        self.conversation_id = conversation_id
        self.has_begun = False
        self._step: str | None = None
        self._attempt = 0
        self._text: str | None = None
        self._calls: dict[str, _Call] = {}
        self._questions: dict[str, Question] = {}
        self._said: dict[str, str | None] = {}

    @property
    def is_known(self) -> bool:
        """Whether what is told now is only to be remembered: the reader knows it, or it is no part of their answer."""
        return self._is_before or bool(self._unheard)

    def tell(self, told: Told) -> list[Part]:
        """What an event adds to the story."""
        self._is_before = told.is_before
        kind, data = told.event.type, json.loads(told.event.data)
        if kind == "run.queued":
            self._start(told.run_id, data["conversation_id"])
        return list(self._tell(kind, data))

    def questions(self) -> list[Question]:
        """What waits for a person; nothing, as long as it is not clear of each call whether it does."""
        return list(self._questions.values()) if all(call.is_clear for call in self._calls.values()) else []

    def questions_after(self, later: Iterable[LoggedEvent]) -> list[Question]:
        """The questions that nothing settles of what happened later."""
        settled = {json.loads(event.data)["confirmation_id"] for event in later if event.type in _SETTLING}
        return [asked for asked in self.questions() if asked.confirmation_id not in settled]

    def _tell(self, kind: str, data: Mapping[str, Any]) -> Iterator[Part]:
        if not self.run_id:
            # Of a log that is gone, pieces of text may be left.
            return
        if kind == "run.started":
            self.has_begun = True
            yield Began()
        elif kind.startswith("message."):
            yield from self._tell_text(kind, data)
        elif kind.startswith("tool_call."):
            yield from self._tell_call(kind, data)
        elif kind.startswith("confirmation."):
            yield from self._tell_question(kind, data)
        elif kind in set(End):
            # Whatever was asked, nobody comes back to it any more.
            self._unheard.clear()
            yield from self._void()
            yield from self._settle_rest(self._calls)
            yield Ended(End(kind), data["error"])

    def _tell_text(self, kind: str, data: Mapping[str, Any]) -> Iterator[Part]:
        step = APOLOGY if data["step"] is None else str(data["step"])
        if step != self._step:
            yield from self._void()
            yield from self._settle_rest([key for key, call in self._calls.items() if call.is_ambiguous])
            self._step = step
        if kind == "message.delta":
            if data["attempt"] != self._attempt:
                yield from self._void()
            self._attempt = data["attempt"]
            yield from self._add(data["text"])
        elif kind == "message.reset":
            yield from self._void()
        elif kind == "message.completed":
            yield from self._complete(data["text"])

    def _add(self, text: str) -> Iterator[Part]:
        assert self._step is not None
        if self._text is None:
            self._text = ""
            yield TextBegan(self._step)
        self._text += text
        yield TextPiece(self._step, text)

    def _complete(self, text: str) -> Iterator[Part]:
        # Pieces may have been lost: then those that came are no beginning of the text, which is told anew.
        if self._text is not None and not text.startswith(self._text):
            yield from self._void()
        missing = text[len(self._text or "") :]
        if missing:
            yield from self._add(missing)
        if self._text is not None and self._step is not None:
            self._text = None
            yield TextEnded(self._step)

    def _void(self) -> Iterator[Part]:
        if self._text is not None and self._step is not None:
            self._text = None
            yield TextVoid(self._step)

    def _tell_call(self, kind: str, data: Mapping[str, Any]) -> Iterator[Part]:
        key, tool = data["tool_call_id"], data["tool"]
        call = self._calls.setdefault(key, _Call(tool))
        if kind == "tool_call.proposed":
            yield CallProposed(key, str(data["step"]), tool, data["arguments"])
            return
        call.is_clear = True
        if kind == "tool_call.started":
            call.is_started, call.is_ambiguous = True, False
        elif kind == "tool_call.ambiguous":
            # A person may say yet what became of it; until the model is told that nobody knows.
            call.is_ambiguous = True
        elif kind in _SETTLED:
            del self._calls[key]
            yield self._settled(kind, key, tool, data)

    def _settled(self, kind: str, key: str, tool: str, data: Mapping[str, Any]) -> Settled:
        if kind == "tool_call.succeeded":
            return Settled(key, tool, _SETTLED[kind], data["result"])
        if data["error"] is None:
            return Settled(key, tool, Outcome.RESULT, self._said.get(key) or "")
        return Settled(key, tool, _SETTLED[kind], data["error"])

    def _settle_rest(self, keys: Iterable[str]) -> Iterator[Part]:
        for key in list(keys):
            call = self._calls.pop(key)
            yield Settled(key, call.tool, Outcome.ERROR, OUTCOME_UNKNOWN if call.is_started else NO_RESULT)

    def _tell_question(self, kind: str, data: Mapping[str, Any]) -> Iterator[Part]:
        key = data["confirmation_id"]
        if kind == "confirmation.requested":
            self._unheard.discard(key)
            if data["kind"] == ConfirmationKind.OUTCOME:
                # What became of a call is no yes or no: it is said elsewhere, and waited for.
                return
            self._questions[key] = Question(**{name: data[name] for name in Question.__dataclass_fields__})
            if data["tool_call_id"] in self._calls:
                self._calls[data["tool_call_id"]].is_clear = True
        elif kind == "confirmation.escalated" and key in self._questions:
            later = {"deadline": data["deadline"], "on_deadline": data["on_deadline"]}
            self._questions[key] = replace(self._questions[key], **later)
        elif kind in _SETTLING and key in self._questions:
            asked = self._questions.pop(key)
            if asked.tool_call_id is None:
                yield self._settled_question(kind, asked, data)
            elif data.get("decision") == "respond":
                self._said[asked.tool_call_id] = data["reason"]

    def _settled_question(self, kind: str, asked: Question, data: Mapping[str, Any]) -> Settled:
        if kind != "confirmation.decided":
            return Settled(asked.confirmation_id, asked.tool, Outcome.ERROR, kind.partition(".")[2])
        outcome = Outcome.RESULT if data["decision"] == "approve" else Outcome.REFUSED
        return Settled(asked.confirmation_id, asked.tool, outcome, json.dumps(data["decision"]))
