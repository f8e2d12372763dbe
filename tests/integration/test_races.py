"""Steps that meet, come late, or are done twice: a lock held by the test makes each meeting happen for certain."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.catalogue import AgentCatalogue
from activities.confirmations import ConfirmationActivities
from activities.model import ModelActivities
from activities.proposals import propose
from holdfast.config import agents_yaml
from holdfast.config.models_yaml import load_models
from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.ids import workflow_id
from holdfast.domain.messages import RequestedToolCall
from holdfast.domain.model_calls import Usage
from holdfast.domain.steps import CallRef, ConfirmationCheck, ModelStep
from holdfast.llm.pool import ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.provider_keys import ProviderKeys
from holdfast.store import steps, tool_calls
from holdfast.store.event_log import Tail
from holdfast.store.steps import Step
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Slow, Text, ToolCalls
from holdfast.tools.functions import tools_of_modules
from holdfast.tools.registry import ToolRegistry
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import AGENTS, Stage

WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
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
    return ConfirmationActivities(stage.database, AgentCatalogue(), registry())


def registry() -> ToolRegistry:
    return ToolRegistry(tools_of_modules(["tests.agents.tools"]))


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
    # Not by counting requests: a run of the test before may still be on its way to its end.
    asked_again = [request for request in provider.requests if ada.tenant_id in str(request.body)]
    assert not asked_again, "the model is not asked before the person has decided"

    assert (await ada.decide(asked)).status_code == 200
    run = await ada.ended(run["id"])
    await resetting
    assert any(ada.tenant_id in str(request.body) for request in provider.requests), "it would have been seen"
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
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:steered:{first['message_id']}")

    async def is_held_back() -> bool:
        pending = (await handle.describe()).raw_description.pending_activities
        return bool(pending) and pending[0].last_failure.application_failure_info.type == "RunStopped"

    await until(is_held_back)
    await handle.cancel()
    assert (await ada.ended(first["run_id"]))["status"] == "cancelled"
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


async def test_an_answer_that_an_attempt_thought_dead_stored_first_is_the_one_that_counts(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(Slow(Text("Nothing to do."), 1), Text("Sent."))
    run_id = await ada.start("send")
    await until(lambda: provider.calls == 1)
    step = ModelStep(ada.tenant_id, run_id, 1)
    (trusting,) = [agent for agent in agents_yaml.load_agents(AGENTS).agents if agent.name == "trusting"]
    wished = (RequestedToolCall("send", json.dumps({"marker": ada.tenant_id})),)
    stored = Step(run_id, 1, "", "quality", "m", "d", Usage(1, 1, None), (), 1, None)
    async with stage.database.tenant(ada.tenant_id) as connection:
        await steps.store(connection, ada.tenant_id, stored, [], Tail())
        await tool_calls.propose(connection, ada.tenant_id, propose(step, trusting, registry(), wished, 5, {}))
    run = await ada.ended(run_id)

    assert [call["status"] for call in run["tool_calls"]] == ["succeeded"]
    assert run["reply"] == "Sent."


async def test_a_call_whose_second_run_is_denied_is_not_said_never_to_have_run(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """A person's right is taken away between their word and the dispatch."""
    marker = f"/nowhere/{ada.tenant_id}"
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    provider.script(ToolCalls([("hang_sending", {"marker": marker})]), Text("Done."))
    run = await ada.ask("send", agent="guarded_outcomes")
    asked = await ada.only_pending(run)
    await boss.get("/v1/confirmations")
    await stage.rows("UPDATE api_keys SET roles = '{}' WHERE tenant_id = $1 AND person = 'boss'", ada.tenant_id)
    body = {"outcome": "run_again", "evidence": "I looked."}
    answer = await boss.http.post(f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)
    run = await ada.ended(run["id"])

    assert (answer.status_code, len(effects("hang_sending", marker))) == (200, 1)
    assert "outcome is unknown" in run["tool_calls"][0]["error"]
    assert "outcome is unknown" in provider.requests[-1].last_text


async def test_a_repetition_does_not_pass_the_attempt_that_has_taken_over(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Of a worker that was thought to be dead: it wakes up in the middle of a tool that may be repeated."""
    marker = f"/nowhere/{ada.tenant_id}"
    provider.script(ToolCalls([("hang_paying", {"marker": marker})]), Text("Done."))
    run_id = await ada.start("pay")
    await until(lambda: len(effects("hang_paying", marker)) == 1)
    await stage.rows("UPDATE tool_calls SET attempts = attempts + 1 WHERE run_id = $1", run_id)
    await asyncio.sleep(2)
    call = (await ada.get(f"/v1/runs/{run_id}"))["tool_calls"][0]

    assert (len(effects("hang_paying", marker)), call["attempts"]) == (1, 2)


async def test_a_message_that_only_a_second_attempt_saw_is_not_lost_when_the_first_answers(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """The first attempt was thought to be dead; its answer is stored, and knows nothing of the message."""
    provider.script(Slow(Text("An answer to the first."), 2))
    first = (await ada.send("first", agent="steered")).json()
    await until(lambda: provider.calls == 1)
    second = await ada.start("second", agent="steered", conversation_id=first["conversation_id"])
    models = load_models(AGENTS.with_name("models.yaml"), os.environ, allow_demo=True)
    pool = ModelPool(models.for_router(), models.router_settings, models.litellm_settings)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=2)
    provider.script(Slow(Text("An answer to both."), 4))
    again = asyncio.create_task(
        environment.run(
            ModelActivities(
                *(stage.database, AgentCatalogue(), pool, registry()),
                *(ProviderKeys(stage.database, None), TenantSlots(1)),
            ).call_model,
            ModelStep(ada.tenant_id, first["run_id"], 1),
        )
    )
    await until(lambda: provider.calls == 2)
    run = await ada.ended(first["run_id"])
    provider.release()
    await again
    joined = await ada.ended(second)

    assert run["reply"] == "An answer to the first."
    assert (joined["status"], joined["reply"]) == ("completed", "You said: second")


async def test_a_run_that_is_cancelled_while_the_database_stumbles_is_cancelled(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    run_id = await ada.start("send")
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    async with holding(stage, ("SELECT FROM tool_calls WHERE run_id = $1 FOR UPDATE", (run_id,))):
        await stage.temporal.get_workflow_handle(await workflow_of(ada, stage, run_id)).cancel()
        await waiting_for_a_lock(stage, 1)
        await stage.rows(CUT)
    release.touch()
    run = await ada.ended(run_id)

    assert (run["status"], run["tool_calls"][0]["status"]) == ("cancelled", "ambiguous")


@pytest.mark.parametrize("said", ["cancel", "approve"])
async def test_what_is_said_to_a_terminated_workflow_ends_its_run(
    ada: Caller, stage: Stage, provider: ScriptedProvider, said: str
) -> None:
    run, asked = await waiting(ada, provider)
    await stage.temporal.get_workflow_handle(await workflow_of(ada, stage, run["id"])).terminate()
    if said == "cancel":
        await ada.http.post(f"/v1/runs/{run['id']}/cancel")
    else:
        await ada.decide(asked)
    run = await ada.ended(run["id"])

    assert (run["status"], run["error"]) == ("failed", "terminated from outside")
    assert run["tool_calls"][0]["status"] == "withdrawn"
    assert await ada.pending(run) == []
