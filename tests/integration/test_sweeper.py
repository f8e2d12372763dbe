"""A run that nobody moves any more is ended, also where no message comes to notice it."""

import logging

import pytest

from holdfast.services.sweeper import Sweeper
from holdfast.temporal.client import MessageWorkflows
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage


@pytest.fixture
def sweeper(stage: Stage) -> Sweeper:
    return Sweeper(stage.database, MessageWorkflows(stage.temporal, stage.task_queue))


async def test_a_terminated_run_is_ended_and_what_it_asked_is_withdrawn(
    ada: Caller, stage: Stage, provider: ScriptedProvider, sweeper: Sweeper
) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay")
    confirmation = await ada.only_pending(run)
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}").terminate("by an operator")

    async def is_ended() -> bool:
        await sweeper.sweep()
        return (await ada.get(f"/v1/runs/{run['id']}"))["completed_at"] is not None

    await until(is_ended)
    run = await ada.get(f"/v1/runs/{run['id']}")
    assert (run["status"], run["error"]) == ("failed", "terminated from outside")
    assert [call["status"] for call in run["tool_calls"]] == ["withdrawn"]
    assert (await ada.decide(confirmation)).status_code == 409
    assert await sweeper.sweep() == 0, "done once"


async def test_what_goes_on_or_has_ended_by_itself_is_left_alone(
    ada: Caller, provider: ScriptedProvider, sweeper: Sweeper
) -> None:
    answered = await ada.ask("hello")
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    waiting = await ada.ask("pay")
    await sweeper.sweep()

    assert await ada.get(f"/v1/runs/{answered['id']}") == answered
    assert (await ada.get(f"/v1/runs/{waiting['id']}"))["status"] == "requires_confirmation"


async def test_a_workflow_that_was_reset_goes_on(
    ada: Caller, stage: Stage, provider: ScriptedProvider, sweeper: Sweeper
) -> None:
    """To reset a workflow is to terminate it, and to begin it again under the same id."""
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay")
    await stage.reset(f"{ada.tenant_id}:support:{run['message_id']}")
    workflows = MessageWorkflows(stage.temporal, stage.task_queue)

    async def is_seen() -> bool:
        return any(one.message_id == run["message_id"] for one in await workflows.ended_from_outside(None))

    await until(is_seen)
    await sweeper.sweep()
    await ada.decide(await ada.only_pending(await ada.get(f"/v1/runs/{run['id']}")))
    assert (await ada.ended(run["id"]))["tool_calls"][0]["status"] == "succeeded"


async def test_a_workflow_that_is_stuck_is_told_once(
    stage: Stage, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """Its task fails for ever: what it was started with is no message."""
    handle = await stage.temporal.start_workflow(
        "MessageWorkflow", 7, id=f"stuck:support:{stage.task_queue}", task_queue=stage.task_queue
    )
    with caplog.at_level(logging.ERROR, "holdfast.services.sweeper"):
        try:

            async def is_told() -> bool:
                await sweeper.sweep()
                return bool(caplog.records)

            await until(is_told)
            await sweeper.sweep()
            told = [record.getMessage() for record in caplog.records]
        finally:
            await handle.terminate("the test is over")

    assert len(told) == 1
    assert f"workflow {handle.id} is stuck" in told[0]
