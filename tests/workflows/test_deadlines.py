"""Deadlines are durable timers: minutes or weeks pass, and what was to happen then happens."""

from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json


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
