"""`@ag-ui/client` against `/agui/{agent}`."""

import json
from pathlib import Path
from typing import Any

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness import node
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage

SCRIPT = Path(__file__).with_name("agui.mjs")


def texts(messages: list[Json]) -> list[tuple[str, str]]:
    """Who said what, as the client shows it."""
    return [(one["role"], one["content"]) for one in messages if one.get("content")]


async def test_a_plain_reply_is_the_stored_one_and_a_run_that_is_asked_again_is_the_same(ada: Caller) -> None:
    said = await node.run(SCRIPT, ada, SCENARIO="plain")
    runs = (await ada.get("/v1/runs"))["data"]

    assert len(runs) == 2, "a history that is sent again is no message, nor is a run that is asked for again"
    assert len({run["conversation_id"] for run in runs}) == 1
    assert texts(said["messages"]) == await ada.transcript(runs[0]["conversation_id"])
    assert said["messages"][-1] == said["repeated"][-1]
    assert texts(said["repeated"]) == texts(said["messages"])


async def test_a_text_that_is_void_is_taken_back(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four."), after=4, ends=True), Text("All of it."))
    async with node.running(SCRIPT, ada, SCENARIO="torn") as script:
        assert (await script.said()).startswith("One")
        provider.release()
        said = await script.said()
        await script.ended()

    assert texts(said["messages"]) == [("user", "count"), ("assistant", "All of it.")]


async def interrupted(ada: Caller, provider: ScriptedProvider, payload: Any) -> Json:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})], text="Let me see."), Text("Done."))
    answer = {} if payload is None else {"PAYLOAD": json.dumps(payload)}
    said: Json = await node.run(SCRIPT, ada, SCENARIO="interrupt", **answer)
    assert said["pending"] == []
    assert texts(said["messages"])[-1] == ("assistant", "Done.")
    return said


def result(said: Json) -> Any:
    """What the client was told of the one call."""
    (found,) = [json.loads(one["content"]) for one in said["messages"] if one["role"] == "tool"]
    return found


async def test_an_interrupt_that_is_approved(ada: Caller, provider: ScriptedProvider) -> None:
    said = await interrupted(ada, provider, {"approved": True})
    (interrupt,) = said["interrupts"]
    confirmation = (await ada.get("/v1/confirmations"))["data"][0]

    assert interrupt["id"] == f"{confirmation['id']}.{confirmation['arguments_digest']}"
    assert (interrupt["reason"], interrupt["toolCallId"]) == ("tool_call", confirmation["tool_call_id"])
    assert interrupt["expiresAt"][:19] == confirmation["deadline"][:19]
    assert interrupt["responseSchema"]["required"] == ["approved"]
    assert confirmation["decided_via"] == "ag-ui"
    assert said["interrupted"][-1]["toolCalls"][0]["function"]["name"] == "pay"
    assert result(said) == {"paid": 1}
    assert len(effects("pay", ada.tenant_id)) == 1
    assert len((await ada.get("/v1/runs"))["data"]) == 1


async def test_an_interrupt_that_is_answered_with_other_arguments(ada: Caller, provider: ScriptedProvider) -> None:
    edited = {"marker": ada.tenant_id, "amount": 2}
    said = await interrupted(ada, provider, {"approved": True, "editedArgs": edited})

    assert result(said) == {"paid": 2}
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_an_interrupt_that_is_rejected_or_given_up(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    eve = await stage.caller(f"{ada.tenant_id}-too")
    for caller, payload, why in (
        (ada, {"approved": False, "reason": "too much"}, "too much"),
        (eve, None, "no answer"),
    ):
        said = await interrupted(caller, provider, payload)
        assert why in result(said)["error"]
        assert effects("pay", caller.tenant_id) == []


async def test_an_answer_to_what_one_was_not_asked_is_refused(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay", agent="guarded")
    asked = await ada.only_pending(run)
    thread, digest = run["conversation_id"], asked["arguments_digest"]
    forged = [
        {"threadId": thread, "interruptId": f"{asked['id']}.{digest}"},
        {"threadId": "another", "interruptId": f"{asked['id']}.{digest}"},
        {"threadId": thread, "interruptId": asked["id"]},
        {"threadId": thread, "tools": [{"name": "t", "description": "d", "parameters": {}}]},
    ]
    outcomes = await node.run(SCRIPT, ada, SCENARIO="forged", FORGED=json.dumps(forged))
    assert [outcome["status"] for outcome in outcomes] == [403, 404, 404, 422]
    assert "one of these roles is needed: billing" in outcomes[0]["error"]

    bob = await stage.caller(ada.tenant_id, person="bob", roles=["billing"])
    other = [{"threadId": thread, "interruptId": f"{asked['id']}.{'0' * 64}"}]
    outcomes = await node.run(SCRIPT, bob, SCENARIO="forged", FORGED=json.dumps(other))
    assert [outcome["status"] for outcome in outcomes] == [412]

    eve = await stage.caller(f"{ada.tenant_id}-eve", person="eve")
    outcomes = await node.run(SCRIPT, eve, SCENARIO="forged", FORGED=json.dumps(forged[:2]))
    assert [outcome["status"] for outcome in outcomes] == [404, 404]

    assert (await ada.only_pending(await ada.run(run["id"])))["id"] == asked["id"]
    assert effects("pay", ada.tenant_id) == []
