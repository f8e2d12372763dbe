"""`GET /v1/runs`: what became of messages."""

from typing import Annotated

from fastapi import Query, Request

from api.auth import Authenticated
from api.routes.messages import MAX_WAIT_S
from api.routing import resource
from api.shapes import Page, Paging, PathId, RunShape
from api.wiring import services
from holdfast.domain.runs import RunStatus

router = resource("/v1/runs", "runs")


class RunsQuery(Paging):
    """Paging, and which runs."""

    status: RunStatus | None = None


@router.get("")
async def list_runs(request: Request, caller: Authenticated, query: Annotated[RunsQuery, Query()]) -> Page[RunShape]:
    """Runs, newest first."""
    found = services(request)
    runs = await found.runs.page(caller.tenant_id, status=query.status, after=query.after, limit=query.limit + 1)
    return Page.of([RunShape.of(run, found) for run in runs], query.limit, [run.run.run_id for run in runs])


@router.post("/{run_id}/cancel")
async def cancel_run(request: Request, caller: Authenticated, run_id: PathId) -> RunShape:
    """Stop a run; the transcript stays valid. Answers with the run, which may end a moment later; ended, it stays."""
    found = services(request)
    return RunShape.of(await found.runs.cancel(caller, run_id), found)


@router.get("/{run_id}")
async def get_run(
    request: Request,
    caller: Authenticated,
    run_id: PathId,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for its end")] = 0,
) -> RunShape:
    """A run with its steps, tool calls, usage and reply; with `?wait=`, as it is when it ends or needs a person."""
    found = services(request)
    if wait:
        await found.runs.wait(caller.tenant_id, run_id, wait)
    return RunShape.of(await found.runs.get(caller.tenant_id, run_id), found)
