"""Steps that meet, come late, or are done twice: a lock held by the test makes each meeting happen for certain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url
from temporalio.exceptions import ApplicationError

from activities.catalogue import AgentCatalogue
from activities.confirmations import ConfirmationActivities
from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.ids import workflow_id
from holdfast.domain.steps import CallRef, ConfirmationCheck
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Slow, Text, ToolCalls
from holdfast.tools.functions import tools_of_modules
from holdfast.tools.registry import ToolRegistry
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage

WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@asynccontextmanager
async def holding(stage: Stage, *statements: tuple[str, tuple[object, ...]]) -> AsyncIterator[None]:
    """What these statements lock stays locked while the block runs; then they are committed."""
    connection = await asyncpg.connect(make_url(stage.owner_url).set(drivername="postgresql").render_as_string(False))
    try:
        async with connection.transaction():
            for statement, values in statements:
                await connection.execute(statement, *values)
            yield
    finally:
        await connection.close()


async def waiting_for_a_lock(stage: Stage, count: int) -> None:
    async def are_waiting() -> bool:
        return int((await stage.rows(WAITING))[0]["n"]) >= count

    await until(are_waiting)


def activities(stage: Stage) -> ConfirmationActivities:
    """The activities, as a worker has them that was slow, or that does again what one before it did."""
    return ConfirmationActivities(
        stage.database, AgentCatalogue(), ToolRegistry(tools_of_modules(["tests.agents.tools"]))
    )


async def waiting(caller: Caller, provider: ScriptedProvider, **options: str) -> tuple[Json, Json]:
    """A run that waits for a person to confirm a payment, and its confirmation."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]), Text("Done."))
    run = await caller.ask("pay", **options)
    return run, await caller.only_pending(run)


async def workflow_of(caller: Caller, stage: Stage, run_id: str) -> str:
    (row,) = await stage.rows("SELECT agent, message_id FROM runs WHERE run_id = $1", run_id)
    return workflow_id(caller.tenant_id, row["agent"], row["message_id"])


async def test_of_two_messages_at_once_a_conversation_that_takes_one_refuses_the_other(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    first = await ada.ask("first", agent="refusing")
    conversation = first["conversation_id"]
    provider.script(Slow(Text("Done."), 2))
    lock = ("SELECT FROM conversations WHERE conversation_id = $1 FOR UPDATE", (conversation,))
    async with holding(stage, lock):
        sending = [asyncio.create_task(ada.send(text, agent="refusing", conversation_id=conversation)) for text in "ab"]
        await waiting_for_a_lock(stage, 2)
    answers = [await one for one in sending]

    assert sorted(answer.status_code for answer in answers) == [202, 409]


async def test_a_reset_while_a_person_is_asked_goes_on_waiting_for_them(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    run, asked = await waiting(ada, provider)
    resetting = asyncio.create_task(stage.reset_to_the_beginning(await workflow_of(ada, stage, run["id"])))
    await asyncio.sleep(2)
    assert (await ada.get(f"/v1/runs/{run['id']}"))["status"] == "requires_confirmation"
    assert provider.calls == 1, "the model is not asked before the person has decided"

    assert (await ada.decide(asked)).status_code == 200
    run = await ada.ended(run["id"])
    await resetting
    assert (run["reply"], run["tool_calls"][0]["status"]) == ("Done.", "succeeded")
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_reset_while_an_outcome_is_unknown_goes_on_waiting_for_it(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    marker = f"/nowhere/{ada.tenant_id}"
    provider.script(ToolCalls([("hang_sending", {"marker": marker})]), Text("Done."))
    run = await ada.ask("send")
    asked = await ada.only_pending(run)
    resetting = asyncio.create_task(stage.reset_to_the_beginning(await workflow_of(ada, stage, run["id"])))
    await asyncio.sleep(2)
    assert provider.calls == 1, "the model is not asked before the person has said what happened"

    body = {"outcome": "committed", "evidence": "I looked.", "result": 7}
    await ada.http.post(f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)
    run = await ada.ended(run["id"])
    await resetting
    assert (run["reply"], run["tool_calls"][0]["status"]) == ("Done.", "succeeded")
    assert len(effects("hang_sending", marker)) == 1


async def test_an_escalation_that_is_done_again_after_its_commit_expires_nothing(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    run, asked = await waiting(ada, provider, agent="escalating")
    passed = datetime.fromisoformat(asked["deadline"])
    check = ConfirmationCheck(ada.tenant_id, run["id"], asked["id"], deadline_passed=True, deadline=passed)
    outcomes = [await activities(stage).check_confirmation(check) for _ in range(2)]

    assert [outcome.status for outcome in outcomes] == [ConfirmationStatus.PENDING] * 2
    assert (await ada.get(f"/v1/confirmations/{asked['id']}"))["approvers"] == ["billing", "head"]


async def test_nobody_is_asked_for_a_run_that_has_ended(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    """The worker that was to ask was slow, and the run was cancelled meanwhile."""
    run, _ = await waiting(ada, provider)
    await ada.http.post(f"/v1/runs/{run['id']}/cancel")
    await ada.ended(run["id"])
    await stage.rows("DELETE FROM confirmations WHERE run_id = $1", run["id"])
    with pytest.raises(ApplicationError, match="not to be confirmed any more"):
        await activities(stage).request_confirmation(CallRef(ada.tenant_id, run["id"], run["tool_calls"][0]["id"]))

    assert await ada.pending(run) == []


async def test_a_message_does_not_join_a_run_that_is_to_be_cancelled(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """The word to Temporal is under way; the message that came after it is to be answered."""
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    first = (await ada.send("first", agent="steered")).json()
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    await stage.rows("UPDATE runs SET cancelled_by = 'ada' WHERE run_id = $1", first["run_id"])
    second = await ada.start("second", agent="steered", conversation_id=first["conversation_id"])
    release.touch()
    await ada.ended(first["run_id"])
    run = await ada.ended(second)

    assert (run["status"], run["reply"]) == ("completed", "You said: second")


async def test_a_message_joins_no_other_agents_run(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    first = (await ada.send("first", agent="support")).json()
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    second = await ada.start("second", agent="steered", conversation_id=first["conversation_id"])
    release.touch()
    await ada.ended(first["run_id"])
    run = await ada.ended(second)

    assert (run["status"], run["agent"]) == ("completed", "steered")


async def test_unknown_outcomes_of_one_step_never_wait_for_each_other(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    before = (await stage.rows(DEADLOCKS))[0]["deadlocks"]
    calls = [("hang_sending", {"marker": f"/nowhere/{ada.tenant_id}/{n}"}) for n in range(8)]
    provider.script(ToolCalls(calls), Text("Done."))
    run = await ada.ask("send all")

    async def all_asked() -> bool:
        return len(await ada.pending(run)) == len(calls)

    await until(all_asked)
    await asyncio.sleep(1)
    assert (await stage.rows(DEADLOCKS))[0]["deadlocks"] == before


async def test_a_cancellation_that_comes_as_a_run_ends_is_not_told_for_ever(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(Slow(Text("Done."), 1))
    run_id = await ada.start("hello")
    await until(lambda: provider.calls == 1)
    ask = ("UPDATE runs SET cancelled_by = 'ada' WHERE run_id = $1", (run_id,))
    tell = (
        "INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, due_at)"
        " VALUES ($1, 'cancel', 'unknown', $2, clock_timestamp() + interval '1 hour')",
        (ada.tenant_id, run_id),
    )
    async with holding(stage, ask, tell):
        await waiting_for_a_lock(stage, 1)
    await ada.ended(run_id)

    assert await stage.rows("SELECT kind FROM outbox WHERE tenant_id = $1", ada.tenant_id) == []


async def test_a_result_that_is_being_stored_when_the_run_is_cancelled_is_kept(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    run_id = await ada.start("send")
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    lock = ("SELECT FROM tool_calls WHERE run_id = $1 FOR UPDATE", (run_id,))
    async with holding(stage, lock):
        release.touch()
        await waiting_for_a_lock(stage, 1)
        await stage.temporal.get_workflow_handle(await workflow_of(ada, stage, run_id)).cancel()
        await asyncio.sleep(2.5)
    run = await ada.ended(run_id)

    assert (run["status"], run["tool_calls"][0]["status"]) == ("cancelled", "succeeded")
