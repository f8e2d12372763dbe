"""What chat clients read along: a run's events in a protocol of theirs, up to its end or to a question for the reader.

A question that the reader may not decide is not put to them: the stream goes on, and tells what others decided.
"""

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from api.open_streams import OpenStream
from api.projections.story import Question, Story
from api.wiring import Services
from holdfast.domain.errors import Gone, NotFound, Unavailable
from holdfast.domain.events import TERMINAL, LoggedEvent, RunMerged
from holdfast.domain.exchanges import Place
from holdfast.domain.runs import OPEN
from holdfast.services.runs import RunDetail
from holdfast.services.threads import answerable

log = logging.getLogger(__name__)

Said = TypeVar("Said")
Spoken = TypeVar("Spoken", covariant=True)


class Projection(Protocol[Spoken]):
    """A story in a protocol's words."""

    story: Story

    def on(self, event: LoggedEvent) -> Sequence[Spoken]:
        """What the reader is told of an event."""

    def interrupt(self, questions: list[Question]) -> Sequence[Spoken]:
        """How the stream ends where the reader is asked."""

    def cut_off(self) -> Sequence[Spoken]:
        """How it ends where the run goes on without it."""


#: An event; or the questions with which a stream ends.
What = LoggedEvent | list[Question]


async def read(found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]) -> AsyncGenerator[Said]:
    """A run that the reader sees, in the words of a projection; leaving it changes nothing."""
    try:
        async with aclosing(_told(found, stream, run_id, projection)) as told:
            async for said in told:
                yield said
    except (Unavailable, SQLAlchemyError) as error:
        # The status is sent: that the reader must come again can be said in the stream only.
        log.warning("the stream of run %s was cut off: %s", run_id, type(error).__name__)
        for said in projection.cut_off():
            yield said


async def _told(found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]) -> AsyncGenerator[Said]:
    reading: str | None = run_id
    while reading is not None:
        run_id, last = reading, None
        # Of a run that ended long ago the log is gone: it is told from the record, below.
        with suppress(Gone):
            async with aclosing(_happening(found, stream, run_id, projection.story)) as happening:
                async for last in happening:
                    for said in projection.on(last) if isinstance(last, LoggedEvent) else projection.interrupt(last):
                        yield said
        reading = await _read_on_in(found, stream, last)
    if last is None or (isinstance(last, LoggedEvent) and last.type not in TERMINAL - {RunMerged.TYPE}):
        for said in await _without_its_log(found, stream, run_id, projection):
            yield said


async def _happening(found: Services, stream: OpenStream, run_id: str, story: Story) -> AsyncGenerator[What]:
    """What happens in a run, while its story is told: events up to its last, or up to what the reader is asked."""
    after = 0
    while True:
        async with found.events.following(stream.caller, run_id, after=after, may_go_on=stream.may_go_on) as events:
            async for event in events:
                yield event
                after = event.seq
                if _may_ask(event, story):
                    break
            else:
                return
        if questions := await _questions(found, stream, run_id, after, story):
            yield questions
            return


def _may_ask(event: LoggedEvent, story: Story) -> bool:
    # An escalation asks further people, of whom the reader may be one.
    is_of_asking = event.type in ("confirmation.requested", "confirmation.escalated")
    return (is_of_asking or event.type.startswith("tool_call.")) and not story.is_known and bool(story.questions())


async def _questions(found: Services, stream: OpenStream, run_id: str, after: int, story: Story) -> list[Question]:
    """What waits for the reader now. Whoever reads later than it happened is not asked what was decided since."""
    async with found.events.following(stream.caller, run_id, after=after, to_the_end=False) as later:
        questions = story.questions_after([event async for event in later])
    own = await answerable(found.confirmations, stream.caller, [asked.confirmation_id for asked in questions])
    return [asked for asked in questions if asked.confirmation_id in own]


async def _read_on_in(found: Services, stream: OpenStream, last: What | None) -> str | None:
    """The run that a message has joined, if the reader sees it; if not, it is waited for."""
    if not isinstance(last, LoggedEvent) or last.type != RunMerged.TYPE:
        return None
    run_id = str(json.loads(last.data)["merged_into"])
    try:
        await found.runs.wait(stream.caller, run_id, 0)
    except NotFound:
        # It is somebody else's, who is the one to read it; how it answers this message is told in the end.
        joined = str(json.loads(last.data)["run_id"])
        async with found.events.answering(stream.caller, Place(joined), may_go_on=stream.may_go_on) as told:
            async for _ in told:
                pass
        return None
    return run_id


async def _without_its_log(
    found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]
) -> list[Said]:
    """The rest of a run whose log says nothing more: this process stops, the reader may not go on, or the log was
    removed after the run."""
    if not await stream.may_go_on():
        return list(projection.cut_off())
    detail = await found.runs.answering(stream.caller, run_id)
    if detail.run.status in OPEN or projection.story.run_id == detail.run.run_id:
        return list(projection.cut_off())
    return [said for event in _from_record(detail) for said in projection.on(event)]


def _from_record(detail: RunDetail) -> list[LoggedEvent]:
    run = detail.run
    told: list[tuple[str, dict[str, Any]]] = [
        ("run.queued", {"run_id": run.run_id, "conversation_id": run.conversation_id}),
        ("run.started", {}),
        ("message.completed", {"step": None, "text": detail.reply or ""}),
        (f"run.{run.status}", {"error": run.error}),
    ]
    return [LoggedEvent(seq, kind, json.dumps(data)) for seq, (kind, data) in enumerate(told, 1)]
