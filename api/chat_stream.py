"""What chat clients read along: a run's events in a protocol of theirs, up to its end or to a question for the reader.

A question that the reader may not decide is not put to them: the stream goes on, and tells what others decided.
"""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api.open_streams import OpenStream
from api.projections.projection import Projection, Said
from api.projections.story import Question, Story
from api.wiring import Services
from holdfast.domain.errors import Gone, Unavailable
from holdfast.domain.events import TERMINAL, LoggedEvent
from holdfast.domain.exchanges import Place
from holdfast.domain.runs import OPEN
from holdfast.services.run_events import Told
from holdfast.services.runs import RunDetail
from holdfast.services.threads import answerable

log = logging.getLogger(__name__)


async def read(found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]) -> AsyncGenerator[Said]:
    """A run that the reader sees, in the words of a projection; leaving it changes nothing."""
    try:
        async with aclosing(_told(found, stream, run_id, projection)) as told:
            async for said in told:
                yield said
    except (Gone, Unavailable, SQLAlchemyError) as error:
        # The status is sent: that the reader must come again can be said in the stream only.
        log.warning("the stream of run %s was cut off: %s", run_id, type(error).__name__)
        for said in projection.cut_off():
            yield said


async def _told(found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]) -> AsyncGenerator[Said]:
    last: Told | None = None
    async with found.events.answering(stream.caller, Place(run_id), may_go_on=stream.may_go_on) as happening:
        async for last in happening:
            for said in projection.on(last):
                yield said
            if questions := await _questions(found, stream, last, projection.story):
                for said in projection.interrupt(questions):
                    yield said
                return
    if last is None or last.event.type not in TERMINAL:
        for said in await _without_its_log(found, stream, run_id, projection):
            yield said


def _may_ask(event: LoggedEvent, story: Story) -> bool:
    # An escalation asks further people, of whom the reader may be one.
    is_of_asking = event.type in ("confirmation.requested", "confirmation.escalated")
    return (is_of_asking or event.type.startswith("tool_call.")) and not story.is_known and bool(story.questions())


async def _questions(found: Services, stream: OpenStream, told: Told, story: Story) -> list[Question]:
    """What waits for the reader now. Whoever reads later than it happened is not asked what was decided since."""
    if not _may_ask(told.event, story):
        return []
    async with found.events.following(stream.caller, told.run_id, after=told.event.seq, to_the_end=False) as later:
        questions = story.questions_after([event async for event in later])
    own = await answerable(found.confirmations, stream.caller, [asked.confirmation_id for asked in questions])
    return [asked for asked in questions if asked.confirmation_id in own]


async def _without_its_log(
    found: Services, stream: OpenStream, run_id: str, projection: Projection[Said]
) -> list[Said]:
    """The rest of a run whose log says nothing more: this process stops, the reader may not go on, or the log was
    removed after the run."""
    if not await stream.may_go_on():
        return projection.cut_off()
    detail = await found.runs.answering(stream.caller, run_id)
    if detail.run.status in OPEN or projection.story.has_begun:
        return projection.cut_off()
    return [said for told in _from_record(detail) for said in projection.on(told)]


def _from_record(detail: RunDetail) -> list[Told]:
    run = detail.run
    told: list[tuple[str, dict[str, Any]]] = [
        ("run.queued", {"conversation_id": run.conversation_id}),
        ("run.started", {}),
        ("message.completed", {"step": None, "text": detail.reply or ""}),
        (f"run.{run.status}", {"error": run.error}),
    ]
    events = [LoggedEvent(seq, kind, json.dumps(data)) for seq, (kind, data) in enumerate(told, 1)]
    return [Told(run.run_id, 0, event, is_before=False) for event in events]
