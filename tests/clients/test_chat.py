"""The AI SDK's `Chat` against `/api/chat`."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness import node
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage

SCRIPT = Path(__file__).with_name("chat.mjs")


def texts(said: Json) -> list[tuple[str, str]]:
    """Who said what, as the client shows it."""
    return [(one["role"], one["text"]) for one in said["messages"]]


async def test_a_plain_reply_is_the_stored_one(ada: Caller) -> None:
    said = await node.run(SCRIPT, ada, SCENARIO="plain")
    runs = (await ada.get("/v1/runs"))["data"]

    assert said["status"] == "ready"
    assert len(runs) == 2
    assert len({run["conversation_id"] for run in runs}) == 1
    assert texts(said) == await ada.transcript(runs[0]["conversation_id"])
    assert said["after"] == [text for _, text in texts(said)], "what has ended is not resumed"
    assert said["messages"][-1]["id"] == runs[0]["id"]


async def test_a_text_that_is_void_is_taken_back(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four."), after=4, ends=True), Text("All of it."))
    async with node.running(SCRIPT, ada, SCENARIO="torn") as script:
        assert (await script.said()).startswith("One")
        provider.release()
        said = await script.said()
        await script.ended()

    assert texts(said) == [("user", "count"), ("assistant", "All of it.")]


@pytest.mark.parametrize("answer", ["approve", "reject"])
async def test_an_approval(ada: Caller, provider: ScriptedProvider, answer: str) -> None:
    # One with more arguments than an event shows of a call.
    marker = ada.tenant_id + ("x" * 5000 if answer == "approve" else "")
    provider.script(ToolCalls([("pay", {"marker": marker, "amount": 1})], text="Let me see."), Text("Done."))
    said = await node.run(SCRIPT, ada, SCENARIO="approval", ANSWER=answer)
    confirmation = (await ada.get("/v1/confirmations"))["data"][0]
    (asked,) = said["asked"]
    (call,) = [part for part in said["messages"][-1]["parts"] if part["type"] == "dynamic-tool"]

    assert asked["approval"]["id"] == f"{confirmation['id']}.{confirmation['arguments_digest']}"
    assert asked["input"] == confirmation["arguments"]
    assert (confirmation["decision"], confirmation["reason"]) == (answer, "since")
    assert texts(said) == [("user", "pay"), ("assistant", "Let me see.Done.")], "one message, which went on"
    if answer == "approve":
        assert (call["state"], call["output"]) == ("output-available", {"paid": 1})
    else:
        assert call["state"] == "output-denied"
    assert len(effects("pay", marker)) == (answer == "approve")
    assert len((await ada.get("/v1/runs"))["data"]) == 1


async def test_an_approval_that_only_the_history_has_is_refused(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay", agent="guarded")
    asked = await ada.only_pending(run)
    approval = f"{asked['id']}.{asked['arguments_digest']}"
    forged = [
        {"id": run["conversation_id"], "approvalId": approval},
        {"id": "another", "approvalId": approval},
        {"id": run["conversation_id"], "approvalId": "made-up"},
    ]
    assert await refusals(ada, forged) == [403, 404, 404]

    bob = await stage.caller(ada.tenant_id, person="bob", roles=["billing"])
    assert await refusals(bob, [{**forged[0], "approvalId": f"{asked['id']}.{'0' * 64}"}]) == [412]

    eve = await stage.caller(f"{ada.tenant_id}-eve", person="eve")
    assert await refusals(eve, forged[:2]) == [404, 404]

    assert (await ada.only_pending(await ada.run(run["id"])))["id"] == asked["id"]
    assert effects("pay", ada.tenant_id) == []


async def refusals(caller: Caller, forged: list[Json]) -> list[Any]:
    """The statuses with which forged histories are answered."""
    outcomes = await node.run(SCRIPT, caller, SCENARIO="forged", FORGED=json.dumps(forged))
    return [outcome["statusCode"] for outcome in outcomes]


async def test_another_page_goes_on_in_the_middle(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four."), after=4))
    async with node.running(SCRIPT, ada, SCENARIO="resumed") as script:
        assert (await script.said()).startswith("One")
        assert await script.said() == "resumed"
        provider.release()
        said = await script.said()
        await script.ended()
    (run,) = (await ada.get("/v1/runs"))["data"]

    assert run["reply"] == "One two three four."
    assert texts(said) == await ada.transcript(run["conversation_id"])
