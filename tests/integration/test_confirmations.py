"""A confirmation is decided, or expires, exactly once; what was decided is what happens."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage
from workflows import names


async def waiting(caller: Caller, provider: ScriptedProvider, **options: Any) -> tuple[Json, Json]:
    """A run that waits for a person to confirm a payment, and its confirmation."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]))
    run_id = await caller.start("do it", **options)
    confirmation = await caller.confirmation_of(run_id)
    return await caller.get(f"/v1/runs/{run_id}"), confirmation


async def test_a_call_waits_for_a_person(ada: Caller, provider: ScriptedProvider) -> None:
    run, confirmation = await waiting(ada, provider)

    assert confirmation["tool"] == "pay"
    assert confirmation["arguments"] == {"marker": ada.tenant_id, "amount": 7}
    assert confirmation["status"] == "pending"
    assert confirmation["rule"] == "pay: confirm"
    assert confirmation["requested_by"] == "ada"
    assert run["reply"] is None
    assert run["tool_calls"][0]["status"] == "awaiting_confirmation"
    assert effects("pay", ada.tenant_id) == []
    assert await ada.get(f"/v1/confirmations/{confirmation['id']}") == confirmation


async def test_an_approved_call_runs_once_and_the_model_sees_its_result(
    ada: Caller, provider: ScriptedProvider
) -> None:
    run, confirmation = await waiting(ada, provider)
    decided = await ada.decide(confirmation)
    run = await ada.run(run["id"])

    assert decided.json()["status"] == "approved"
    assert decided.json()["decided_by"] == "ada"
    assert run["status"] == "completed"
    assert run["tool_calls"][0]["result"] == {"paid": 7}
    assert provider.requests[-1].last_text == '{"paid":7}'
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_rejection_tells_the_model_why(ada: Caller, provider: ScriptedProvider) -> None:
    run, confirmation = await waiting(ada, provider)
    await ada.decide(confirmation, "reject", reason="not today")
    run = await ada.run(run["id"])

    assert run["status"] == "completed"
    assert run["tool_calls"][0]["status"] == "rejected"
    assert "not today" in provider.requests[-1].last_text
    assert effects("pay", ada.tenant_id) == []


async def test_nobody_decides_and_the_deadline_rejects(ada: Caller, provider: ScriptedProvider) -> None:
    run, confirmation = await waiting(ada, provider, agent="hasty")
    run = await ada.ended(run["id"])

    assert run["status"] == "completed"
    assert run["tool_calls"][0]["status"] == "expired"
    assert "Nobody confirmed" in provider.requests[-1].last_text
    late = await ada.decide(confirmation)
    assert late.status_code == 409
    assert "expired" in late.json()["detail"]
    assert effects("pay", ada.tenant_id) == []


async def test_the_same_decision_again_answers_alike(ada: Caller, provider: ScriptedProvider) -> None:
    run, confirmation = await waiting(ada, provider)
    first, again = await ada.decide(confirmation), await ada.decide(confirmation)
    await ada.run(run["id"])
    at_last = await ada.decide(confirmation)

    assert (first.status_code, again.status_code, at_last.status_code) == (200, 200, 200)
    assert first.json() == again.json() == at_last.json()
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_another_decision_is_a_conflict(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run, confirmation = await waiting(ada, provider)
    bob = await stage.caller(ada.tenant_id, person="bob")
    await ada.decide(confirmation)

    assert (await ada.decide(confirmation, "reject")).status_code == 409
    assert (await bob.decide(confirmation)).status_code == 409, "the same decision, but somebody else's"
    await ada.run(run["id"])


async def test_another_digest_is_refused(ada: Caller, provider: ScriptedProvider) -> None:
    _, confirmation = await waiting(ada, provider)
    response = await ada.decide({**confirmation, "arguments_digest": "0" * 64})

    assert response.status_code == 412
    assert (await ada.get(f"/v1/confirmations/{confirmation['id']}"))["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"decision": "perhaps", "arguments_digest": "0" * 64}, "decision"),
        ({"decision": "approve"}, "arguments_digest"),
        ({"decision": "approve", "arguments_digest": "short"}, "arguments_digest"),
        ({"decision": "approve", "arguments_digest": "0" * 64, "reason": "r" * 2001}, "reason"),
        ({"decision": "approve", "arguments_digest": "0" * 64, "reason": "\x00"}, "reason"),
        ({"decision": "approve", "arguments_digest": "0" * 64, "by": "bob"}, "by"),
    ],
)
async def test_a_decision_that_makes_no_sense_is_refused(ada: Caller, body: Json, field: str) -> None:
    response = await ada.http.post("/v1/confirmations/conf_any/decision", json=body)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_an_unknown_confirmation_and_another_tenants_look_alike(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    _, confirmation = await waiting(ada, provider)
    mallory = await stage.caller(f"{ada.tenant_id}-other")
    foreign = await mallory.decide(confirmation)
    unknown = await mallory.decide({**confirmation, "id": "conf_unknown"})

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["title"] == unknown.json()["title"]
    assert foreign.json()["detail"].replace(confirmation["id"], "X") == unknown.json()["detail"].replace(
        "conf_unknown", "X"
    )
    assert (await mallory.get("/v1/confirmations"))["data"] == []


@pytest.mark.parametrize("_round", range(5))
async def test_of_racing_decisions_one_wins_and_nobody_is_told_otherwise(
    ada: Caller, stage: Stage, provider: ScriptedProvider, _round: int
) -> None:
    run, confirmation = await waiting(ada, provider)
    people = [ada] + [await stage.caller(ada.tenant_id, person=f"person-{number}") for number in range(5)]
    responses = await asyncio.gather(
        *(person.decide(confirmation, decision) for person in people for decision in ("approve", "reject"))
    )
    run = await ada.run(run["id"])
    stands = await ada.get(f"/v1/confirmations/{confirmation['id']}")

    winners = [response.json() for response in responses if response.status_code == 200]
    assert winners == [stands]
    assert {response.status_code for response in responses} == {200, 409}
    assert len(effects("pay", ada.tenant_id)) == (1 if stands["status"] == "approved" else 0)


@pytest.mark.parametrize("milliseconds_early", [60, 30, 15, 5, 0, -10])
async def test_a_decision_races_the_deadline_and_one_of_them_wins(
    ada: Caller, provider: ScriptedProvider, milliseconds_early: int
) -> None:
    run, confirmation = await waiting(ada, provider, agent="hasty")
    moment = datetime.fromisoformat(confirmation["deadline"]) - timedelta(milliseconds=milliseconds_early)
    await asyncio.sleep((moment - datetime.now(UTC)).total_seconds())
    answer = await ada.decide(confirmation)
    run = await ada.ended(run["id"])
    stands = await ada.get(f"/v1/confirmations/{confirmation['id']}")

    assert (answer.status_code, stands["status"]) in ((200, "approved"), (409, "expired"))
    assert run["tool_calls"][0]["status"] == {"approved": "succeeded", "expired": "expired"}[stands["status"]]
    assert len(effects("pay", ada.tenant_id)) == {"approved": 1, "expired": 0}[stands["status"]]


async def test_several_calls_wait_at_once_and_are_decided_in_any_order(ada: Caller, provider: ScriptedProvider) -> None:
    first, second = f"{ada.tenant_id}-1", f"{ada.tenant_id}-2"
    provider.script(ToolCalls([("send", {"marker": first}), ("send", {"marker": second})]))
    run = await ada.ask("send both")
    while len(pending := await ada.pending(run)) < 2:
        run = await ada.run(run["id"])
    by_marker = {confirmation["arguments"]["marker"]: confirmation for confirmation in pending}

    await ada.decide(by_marker[second], "reject")
    assert (await ada.run(run["id"]))["status"] == "requires_confirmation"
    await ada.decide(by_marker[first])
    run = await ada.run(run["id"])

    assert run["status"] == "completed"
    assert [call["status"] for call in run["tool_calls"]] == ["succeeded", "rejected"]
    assert (len(effects("send", first)), len(effects("send", second))) == (1, 0)


async def test_a_forged_signal_decides_nothing_and_harms_nothing(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    run, confirmation = await waiting(ada, provider)
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}")
    for forged in (confirmation["id"], "conf_unknown", "approve"):
        await handle.signal(names.DECIDED, forged)
    await handle.signal(names.TURN_FREED)
    await handle.signal(names.DECIDED, {"decision": "approve"})

    assert (await ada.run(run["id"]))["status"] == "requires_confirmation"
    assert effects("pay", ada.tenant_id) == []
    await ada.decide(confirmation)
    assert (await ada.run(run["id"]))["status"] == "completed"
    assert len(effects("pay", ada.tenant_id)) == 1
