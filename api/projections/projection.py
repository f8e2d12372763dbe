"""What the projections of a story have in common: each part of it has its words in the protocol of a chat client."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from api.projections.story import (
    Began,
    CallProposed,
    Ended,
    Part,
    Question,
    Settled,
    Story,
    TextBegan,
    TextEnded,
    TextPiece,
    TextVoid,
)
from holdfast.services.run_events import Told

Said = TypeVar("Said")


class Projection(ABC, Generic[Said]):
    """A story in a protocol's words. `answered`: the confirmations that the reader comes back to."""

    def __init__(self, answered: Collection[str] = ()) -> None:
        self.story = Story(answered)
        self._goes_on = bool(answered)
        self._proposed: dict[str, CallProposed] = {}
        #: The calls that the reader has: nobody can place the outcome of another.
        self._shown: set[str] = set()

    def on(self, told: Told) -> list[Said]:
        """What the reader is told of an event."""
        was_known = self.story.is_known
        parts = self.story.tell(told)
        taken_up = list(self._take_up()) if was_known and not self.story.is_known else []
        said = [one for part in parts for one in self._say(part)]
        return [] if self.story.is_known else [*taken_up, *said]

    @abstractmethod
    def interrupt(self, questions: list[Question]) -> list[Said]:
        """How the stream ends where the reader is asked."""

    @abstractmethod
    def cut_off(self) -> list[Said]:
        """How it ends where the run goes on without it."""

    def _say(self, part: Part) -> Iterator[Said]:
        match part:
            case Began():
                if not self.story.is_known:
                    yield from self._take_up()
            case TextBegan() | TextPiece() | TextEnded() | TextVoid():
                yield from self._say_text(part)
            case CallProposed():
                yield from self._show(part)
            case Settled():
                yield from self._settle(part)
            case Ended():
                yield from self._end(part)

    def _show(self, part: CallProposed) -> Iterator[Said]:
        self._proposed[part.tool_call_id] = part
        self._shown.add(part.tool_call_id)
        yield from self._say_call(part)

    def _settle(self, part: Settled) -> Iterator[Said]:
        key = part.tool_call_id
        if key in self._proposed and key not in self._shown:
            yield from self._show(self._proposed[key])
        if key in self._shown:
            yield from self._say_outcome(part)

    @abstractmethod
    def _take_up(self) -> Iterator[Said]:
        """The answer begins, or goes on where the reader was."""

    @abstractmethod
    def _say_text(self, part: TextBegan | TextPiece | TextEnded | TextVoid) -> Iterator[Said]: ...

    @abstractmethod
    def _say_call(self, part: CallProposed) -> Iterator[Said]: ...

    @abstractmethod
    def _say_outcome(self, part: Settled) -> Iterator[Said]: ...

    @abstractmethod
    def _end(self, part: Ended) -> Iterator[Said]: ...
