"""One run at a time has a conversation, in order of arrival, and nobody wedges it."""

import asyncio
from pathlib import Path

from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Reply, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage
from workflows import names


def pay_first(request: RecordedRequest) -> Reply:
    """Asks to pay when told to, and says what was said otherwise."""
    return ToolCalls([("pay", {"marker": "m", "amount": 1})]) if request.last_text == "pay" else Text(request.last_text)


async def test_messages_of_a_conversation_are_answered_in_order(ada: Caller, provider: ScriptedProvider) -> None:
    first = await ada.ask("one")
    conversation = first["conversation_id"]
    accepted = [await ada.start(f"message {number}", conversation_id=conversation) for number in range(5)]
    await asyncio.gather(*(ada.run(run_id) for run_id in accepted))

    asked = [request.last_text for request in provider.requests]
    assert asked == ["one", *(f"message {number}" for number in range(5))]
    spoken = provider.requests[-1].body["messages"][1:]
    assert [message["role"] for message in spoken] == ["user", "assistant"] * 5 + ["user"]


async def test_a_message_waits_while_a_person_is_asked(ada: Caller, provider: ScriptedProvider) -> None:
    provider.default = pay_first
    first = await ada.ask("pay")
    second = await ada.start("and now?", conversation_id=first["conversation_id"])
    await ada.get(f"/v1/runs/{second}", wait=0.5)

    assert (await ada.get(f"/v1/runs/{second}"))["status"] == "queued"
    await ada.decide(await ada.only_pending(first))
    assert (await ada.run(second))["reply"] == "and now?"
    assert (await ada.run(first["id"]))["status"] == "completed"


async def test_a_run_terminated_from_outside_wedges_nothing(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.default = pay_first
    first = await ada.ask("pay")
    confirmation = await ada.only_pending(first)
    second = await ada.start("and now?", conversation_id=first["conversation_id"])
    workflow = f"{ada.tenant_id}:support:{first['message_id']}"
    await stage.temporal.get_workflow_handle(workflow).terminate("by an operator")

    assert (await ada.run(second))["reply"] == "and now?"
    terminated = await ada.get(f"/v1/runs/{first['id']}")
    assert (terminated["status"], terminated["error"]) == ("failed", "terminated from outside")
    assert [call["status"] for call in terminated["tool_calls"]] == ["withdrawn"]
    assert (await ada.decide(confirmation)).status_code == 409


async def test_a_cancelled_run_frees_the_turn(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.default = pay_first
    first = await ada.ask("pay")
    second = await ada.start("and now?", conversation_id=first["conversation_id"])
    workflow = f"{ada.tenant_id}:support:{first['message_id']}"
    await stage.temporal.get_workflow_handle(workflow).cancel()

    assert (await ada.run(second))["reply"] == "and now?"
    assert (await ada.get(f"/v1/runs/{first['id']}"))["status"] == "cancelled"
    chat = provider.requests[-1].body["messages"]
    calls = [call["id"] for message in chat for call in message.get("tool_calls") or ()]
    assert calls == [message["tool_call_id"] for message in chat if message["role"] == "tool"]
    assert len(calls) == 1


async def test_what_a_cancelled_run_asked_for_is_withdrawn(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.default = pay_first
    run = await ada.ask("pay")
    confirmation = await ada.only_pending(run)
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}").cancel()
    run = await ada.ended(run["id"])
    answer = await ada.decide(confirmation)

    assert run["status"] == "cancelled"
    assert [call["status"] for call in run["tool_calls"]] == ["withdrawn"]
    assert await ada.pending(run) == []
    assert (answer.status_code, "withdrawn" in answer.json()["detail"]) == (409, True)
    assert [one for one in effects("pay", "m") if one["key"] == run["tool_calls"][0]["id"]] == []


async def test_a_call_that_a_cancellation_cuts_off_is_never_called_not_run(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    sent = (await ada.send("send")).json()
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{sent['message_id']}").cancel()
    run = await ada.ended(sent["run_id"])
    await ada.ask("and?", conversation_id=run["conversation_id"])
    release.touch()

    assert run["status"] == "cancelled"
    (told,) = [message for message in provider.requests[-1].body["messages"] if message["role"] == "tool"]
    assert "outcome is unknown" in told["content"]


async def test_a_queued_run_outlives_thousands_of_signals(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Temporal ends a run whose history grows too long; one that waits begins a new history before."""
    provider.default = pay_first
    first = await ada.ask("pay")
    second = await ada.send("and now?", conversation_id=first["conversation_id"])
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{second.json()['message_id']}")
    history = (await handle.describe()).run_id
    for _ in range(45):
        await asyncio.gather(*(handle.signal(names.TURN_FREED) for _ in range(100)))
    await ada.decide(await ada.only_pending(first))

    assert (await ada.ended(second.json()["run_id"]))["reply"] == "and now?"
    assert (await handle.describe()).run_id != history
