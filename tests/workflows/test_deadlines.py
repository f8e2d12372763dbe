"""Deadlines are durable timers: minutes or weeks pass, and what was to happen then happens."""

from datetime import datetime, timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage


async def waiting(caller: Caller, provider: ScriptedProvider, agent: str) -> tuple[Json, Json]:
    """A run that waits for a person, and its confirmation."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 1})]))
    run = await caller.ask("pay", agent=agent)
    return run, await caller.only_pending(run)


@pytest.mark.parametrize(("agent", "deadline"), [("support", timedelta(minutes=10)), ("unhurried", timedelta(days=30))])
async def test_it_waits_until_the_deadline_and_no_longer(
    ada: Caller, provider: ScriptedProvider, clock: WorkflowEnvironment, agent: str, deadline: timedelta
) -> None:
    run, confirmation = await waiting(ada, provider, agent)
    await clock.sleep(deadline - timedelta(seconds=30))
    assert (await ada.run(run["id"]))["status"] == "requires_confirmation"

    await clock.sleep(timedelta(seconds=31))
    run = await ada.ended(run["id"])

    assert run["tool_calls"][0]["status"] == "expired"
    assert "Nobody confirmed" in provider.requests[-1].last_text
    assert effects("pay", ada.tenant_id) == []
    assert (await ada.decide(confirmation)).status_code == 409


async def test_a_decision_in_the_last_minute_counts(
    ada: Caller, provider: ScriptedProvider, clock: WorkflowEnvironment
) -> None:
    run, confirmation = await waiting(ada, provider, "unhurried")
    await clock.sleep(timedelta(days=29, hours=23))
    assert (await ada.decide(confirmation)).status_code == 200
    run = await ada.ended(run["id"])
    await clock.sleep(timedelta(days=1))

    assert run["tool_calls"][0]["status"] == "succeeded"
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_message_behind_a_confirmation_waits_for_a_week_if_need_be(
    ada: Caller, provider: ScriptedProvider, clock: WorkflowEnvironment
) -> None:
    first, confirmation = await waiting(ada, provider, "unhurried")
    second = await ada.start("and now?", agent="unhurried", conversation_id=first["conversation_id"])
    await clock.sleep(timedelta(days=7))
    assert (await ada.get(f"/v1/runs/{second}"))["status"] == "queued"

    await ada.decide(confirmation)
    assert (await ada.ended(second))["reply"] == "You said: and now?"
    assert (await ada.ended(first["id"]))["tool_calls"][0]["status"] == "succeeded"


async def test_people_are_reminded_and_then_further_ones_are_asked(
    ada: Caller, stage: Stage, provider: ScriptedProvider, clock: WorkflowEnvironment
) -> None:
    head = await stage.caller(ada.tenant_id, "head", ["head"])
    run, confirmation = await waiting(ada, provider, "escalating")
    assert (await head.decide(confirmation)).status_code == 403, "the head is not asked yet"

    await clock.sleep(timedelta(minutes=5))
    await until(lambda: _is(ada, confirmation, "reminded_at"))
    assert (await ada.get(f"/v1/confirmations/{confirmation['id']}"))["escalated_at"] is None

    await clock.sleep(timedelta(minutes=6))
    await until(lambda: _is(ada, confirmation, "escalated_at"))
    asked = await ada.get(f"/v1/confirmations/{confirmation['id']}")
    assert (asked["status"], asked["approvers"], asked["on_deadline"]) == ("pending", ["billing", "head"], "reject")
    waits = datetime.fromisoformat(asked["deadline"]) - datetime.fromisoformat(confirmation["deadline"])
    assert waits == timedelta(minutes=20)
    assert (await head.decide(asked)).status_code == 200
    assert (await ada.ended(run["id"]))["tool_calls"][0]["status"] == "succeeded"
    recorded = await stage.rows("SELECT outcome FROM audit WHERE subject_id = $1 ORDER BY audit_id", confirmation["id"])
    assert [row["outcome"] for row in recorded] == ["pending", "forbidden", "reminded", "escalated", "approved"]


async def test_after_the_second_deadline_nobody_is_asked_any_more(
    ada: Caller, stage: Stage, provider: ScriptedProvider, clock: WorkflowEnvironment
) -> None:
    head = await stage.caller(ada.tenant_id, "head", ["head"])
    run, confirmation = await waiting(ada, provider, "escalating")
    await clock.sleep(timedelta(minutes=11))
    await until(lambda: _is(ada, confirmation, "escalated_at"))
    await clock.sleep(timedelta(minutes=18))
    assert (await ada.run(run["id"]))["status"] == "requires_confirmation"

    await clock.sleep(timedelta(minutes=2))
    assert (await ada.ended(run["id"]))["tool_calls"][0]["status"] == "expired"
    assert (await head.decide(confirmation)).status_code == 409
    assert effects("pay", ada.tenant_id) == []


async def _is(caller: Caller, confirmation: Json, moment: str) -> bool:
    return (await caller.get(f"/v1/confirmations/{confirmation['id']}"))[moment] is not None
