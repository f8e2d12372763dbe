"""Promise 1: a message is accepted when its row is committed; from then on it is answered, once."""

import dataclasses
import uuid
from functools import partial
from pathlib import Path

import pytest

from holdfast.dev.ports import free_port
from holdfast.dev.temporal import Temporal
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang, ToolCalls
from tests.conftest import new_tenant
from tests.harness.conditions import until
from tests.harness.processes import KillableStage
from tests.harness.servers import Servers
from tests.harness.stage import Stage, playing

REPLIES = "SELECT run_id, count(*) FROM messages WHERE tenant_id = $1 AND role = 'assistant' GROUP BY run_id"


async def test_the_worker_is_killed_while_the_model_answers(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(Hang())
    run_id = await ada.start("hello")
    await until(lambda: provider.calls == 1)

    killable.worker.kill()
    await killable.worker.start()
    run = await ada.ended(run_id)

    assert (run["reply"], run["degraded"]) == ("You said: hello", False)
    assert [row["count"] for row in await killable.stage.rows(REPLIES, ada.tenant_id)] == [1]


async def test_messages_that_came_while_no_worker_was_up_are_answered(killable: KillableStage) -> None:
    ada = await killable.stage.caller(new_tenant())
    runs = [await ada.start(f"message {number}", key=f"k{number}") for number in range(10)]
    again = [await ada.start(f"message {number}", key=f"k{number}") for number in range(10)]
    await killable.worker.start()
    replies = [(await ada.ended(run_id))["reply"] for run_id in runs]

    assert again == runs
    assert replies == [f"You said: message {number}" for number in range(10)]
    assert [row["count"] for row in await killable.stage.rows(REPLIES, ada.tenant_id)] == [1] * 10


async def test_the_worker_is_killed_again_and_again(killable: KillableStage, provider: ScriptedProvider) -> None:
    ada = await killable.stage.caller(new_tenant())
    runs = [await ada.start(f"message {number}") for number in range(20)]
    for answered in (3, 8):
        await killable.worker.start()
        await until(partial(_has_been_asked, provider, answered))
        killable.worker.kill()
    await killable.worker.start()
    replies = [(await ada.ended(run_id))["reply"] for run_id in runs]

    assert replies == [f"You said: message {number}" for number in range(20)]
    assert [row["count"] for row in await killable.stage.rows(REPLIES, ada.tenant_id)] == [1] * 20


@pytest.mark.parametrize("moment", ["before the message", "before the decision"])
async def test_temporal_is_down(
    running_servers: Servers,
    provider: ScriptedProvider,
    tmp_path: Path,
    moment: str,
) -> None:
    """A server of this test's own, stopped and started again on the same file."""
    temporal = Temporal(tmp_path / "temporal.sqlite", tmp_path / "temporal.log", port=free_port(), ui_port=None)
    await temporal.start()
    own_servers = dataclasses.replace(running_servers, temporal_address=temporal.address)
    scenario = {"before the message": _send_while_down, "before the decision": _decide_while_down}[moment]
    try:
        async with playing(own_servers, provider, f"temporal-down-{uuid.uuid4().hex[:12]}") as stage:
            await scenario(stage, temporal)
    finally:
        temporal.stop()


async def _send_while_down(stage: Stage, temporal: Temporal) -> None:
    ada = await stage.caller(new_tenant())
    temporal.stop()
    responses = [await ada.send(f"message {number}", key=f"k{number}") for number in (1, 2, 2)]
    assert [response.status_code for response in responses] == [202] * 3
    assert {response.json()["status"] for response in responses} == {"queued"}
    runs = {response.json()["run_id"] for response in responses}
    assert len(runs) == 2

    await temporal.start()
    replies = {(await ada.ended(run_id))["reply"] for run_id in runs}
    assert replies == {"You said: message 1", "You said: message 2"}
    assert [row["count"] for row in await stage.rows(REPLIES, ada.tenant_id)] == [1, 1]
    await _nothing_is_left_to_say(stage)


async def _decide_while_down(stage: Stage, temporal: Temporal) -> None:
    ada = await stage.caller(new_tenant())
    stage.provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay")
    confirmation = await ada.only_pending(run)
    temporal.stop()
    decided = await ada.decide(confirmation)
    assert (decided.status_code, decided.json()["status"]) == (200, "approved")

    await temporal.start()
    run = await ada.ended(run["id"])
    assert run["tool_calls"][0]["status"] == "succeeded"
    await _nothing_is_left_to_say(stage)


def _has_been_asked(provider: ScriptedProvider, times: int) -> bool:
    return provider.calls >= times


async def _nothing_is_left_to_say(stage: Stage) -> None:
    await until(lambda: _is_empty(stage))


async def _is_empty(stage: Stage) -> bool:
    return not await stage.rows("SELECT * FROM outbox")
