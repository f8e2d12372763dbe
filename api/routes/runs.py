"""`GET /v1/runs`: what became of messages."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import needs
from api.event_stream import ResumedAfter, as_sse, unaltered
from api.open_streams import Stream
from api.problems import documented
from api.routes.messages import MAX_WAIT_S
from api.routing import resource
from api.shapes import Page, Paging, PathId, RunShape
from api.wiring import services
from holdfast.domain.events import LoggedEvent
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import RunStatus

router = resource("/v1/runs", "runs")


class RunsQuery(Paging):
    """Paging, and which runs."""

    status: RunStatus | None = None


@router.get("")
async def list_runs(
    request: Request, caller: Annotated[Caller, needs(Permission.RUNS_READ)], query: Annotated[RunsQuery, Query()]
) -> Page[RunShape]:
    """Runs, newest first."""
    found = services(request)
    runs = await found.runs.page(caller, status=query.status, after=query.after, limit=query.limit + 1)
    return Page.of([RunShape.of(run, found) for run in runs], query.limit, [run.run.run_id for run in runs])


@router.post("/{run_id}/cancel")
async def cancel_run(
    request: Request, caller: Annotated[Caller, needs(Permission.RUNS_CANCEL)], run_id: PathId
) -> RunShape:
    """Stop a run; the transcript stays valid. Answers with the run, which may end a moment later; ended, it stays."""
    found = services(request)
    return RunShape.of(await found.runs.cancel(caller, run_id), found)


_reader = needs(Permission.RUNS_READ)


async def _followed(
    request: Request,
    caller: Annotated[Caller, _reader],
    stream: Stream,
    run_id: PathId,
    after: ResumedAfter,
    follow: Annotated[bool, Query(description="false: end with the newest event that there is")] = True,
) -> AsyncIterator[AsyncIterator[LoggedEvent]]:
    stream.open()
    async with services(request).events.following(
        caller, run_id, after=after, to_the_end=follow, may_go_on=stream.may_go_on
    ) as events:
        yield events


@router.get(
    "/{run_id}/events",
    response_class=EventSourceResponse,
    dependencies=[_reader, Depends(unaltered)],
    responses=documented(410),
)
async def stream_events(
    events: Annotated[AsyncIterator[LoggedEvent], Depends(_followed)],
) -> AsyncIterator[ServerSentEvent]:
    """What happens in a run, from its beginning or after the event that is named, until it has ended.

    `id` is the number of an event, from 1, `event` its type and `data` its JSON: see `docs/how-to/streams.md`. Connect
    again with `Last-Event-ID`, and it goes on after that. Leaving cancels nothing. 410: the run ended so long ago that
    its events are not kept any more.
    """
    async for event in as_sse(events):
        yield event


@router.get("/{run_id}")
async def get_run(
    request: Request,
    caller: Annotated[Caller, needs(Permission.RUNS_READ)],
    run_id: PathId,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for its end")] = 0,
) -> RunShape:
    """A run with its steps, tool calls, usage and reply; with `?wait=`, as it is when it ends or needs a person."""
    found = services(request)
    if wait:
        await found.runs.wait(caller, run_id, wait)
    return RunShape.of(await found.runs.get(caller, run_id), found)
