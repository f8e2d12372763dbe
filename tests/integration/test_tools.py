"""Whatever a tool does, and whatever a model asks for: the model is told, and the run goes on."""

import json

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json


async def with_tool(caller: Caller, provider: ScriptedProvider, tool: str, arguments: Json | str | None = None) -> Json:
    """A run whose model asks for one tool, and answers with a text once it was told of the outcome."""
    provider.script(
        ToolCalls([(tool, {"marker": caller.tenant_id} if arguments is None else arguments)]), Text("Done.")
    )
    run = await caller.ask("use the tool")
    assert (run["status"], run["reply"], run["degraded"]) == ("completed", "Done.", False)
    assert provider.calls == 2
    return run


def told(provider: ScriptedProvider) -> str:
    """What the model was told of the call."""
    assert provider.requests[-1].last_role == "tool"
    return provider.requests[-1].last_text


async def test_an_allowed_tool_runs_without_asking(ada: Caller, provider: ScriptedProvider) -> None:
    run = await with_tool(ada, provider, "look_up")

    assert run["tool_calls"][0]["status"] == "succeeded"
    assert run["tool_calls"][0]["effect"] == "read"
    assert json.loads(told(provider)) == {"found": ada.tenant_id}


async def test_a_tool_that_raises_is_told_to_the_model(ada: Caller, provider: ScriptedProvider) -> None:
    run = await with_tool(ada, provider, "fail")

    assert run["tool_calls"][0]["status"] == "failed"
    assert json.loads(told(provider)) == {"error": f"RuntimeError: no luck with {ada.tenant_id}"}


async def test_what_no_json_can_hold_is_told_to_the_model(ada: Caller, provider: ScriptedProvider) -> None:
    run = await with_tool(ada, provider, "return_something_odd")

    assert run["tool_calls"][0]["status"] == "succeeded"
    assert "can't be shown" in told(provider)


async def test_ten_megabytes_are_cut_for_the_model(ada: Caller, provider: ScriptedProvider) -> None:
    run = await with_tool(ada, provider, "return_much")

    assert run["tool_calls"][0]["status"] == "succeeded"
    assert "characters left out]" in told(provider)
    assert len(told(provider)) < 40_000


async def test_a_hung_tool_that_only_reads_is_cut_and_failed(ada: Caller, provider: ScriptedProvider) -> None:
    run = await with_tool(ada, provider, "hang_reading", {"marker": "/nowhere"})

    assert run["tool_calls"][0]["status"] == "failed"
    assert "did not answer within 0.3 s" in told(provider)


async def test_a_hung_tool_with_an_effect_is_ambiguous_and_never_called_failed(
    ada: Caller, provider: ScriptedProvider
) -> None:
    marker = f"/nowhere/{ada.tenant_id}"
    provider.script(ToolCalls([("hang_sending", {"marker": marker})]), Text("Done."))
    run = await ada.ask("use the tool")

    assert run["status"] == "requires_confirmation"
    assert run["tool_calls"][0]["status"] == "ambiguous"
    assert len(effects("hang_sending", marker)) == 1


async def test_a_hung_tool_with_a_key_runs_again_with_the_same(ada: Caller, provider: ScriptedProvider) -> None:
    marker = f"/nowhere/{ada.tenant_id}"
    run = await with_tool(ada, provider, "hang_paying", {"marker": marker})

    assert (run["tool_calls"][0]["status"], run["tool_calls"][0]["attempts"]) == ("succeeded", 2)
    assert {effect["key"] for effect in effects("hang_paying", marker)} == {run["tool_calls"][0]["id"]}
    assert len(effects("hang_paying", marker)) == 2


@pytest.mark.parametrize(
    ("tool", "arguments", "status", "says"),
    [
        pytest.param("look_up", "{", "failed", "not valid JSON", id="cut"),
        pytest.param("look_up", "[]", "failed", "don't fit", id="a list"),
        pytest.param("look_up", "{}", "failed", "marker: Field required", id="missing"),
        pytest.param("look_up", {"marker": 7}, "failed", "marker:", id="wrong type"),
        pytest.param("look_up", {"marker": "m", "colour": 1}, "failed", "colour:", id="unknown argument"),
        pytest.param("pay", {"marker": "m", "amount": 2**60}, "failed", "can't be taken", id="beyond 2**53"),
        pytest.param("pay", '{"marker": "m", "amount": NaN}', "failed", "amount", id="NaN"),
        pytest.param("pay", {"marker": "m", "amount": "7; DROP"}, "failed", "amount", id="no number"),
        pytest.param("no_such_tool", {}, "denied", "no tool", id="unknown tool"),
        pytest.param("delete", {"marker": "m"}, "denied", "policy forbids", id="forbidden"),
        pytest.param("", {}, "denied", "no tool", id="no name"),
    ],
)
async def test_a_broken_call_goes_back_to_the_model_and_no_person_is_asked(
    ada: Caller, provider: ScriptedProvider, tool: str, arguments: Json | str, status: str, says: str
) -> None:
    run = await with_tool(ada, provider, tool, arguments)

    assert run["tool_calls"][0]["status"] == status
    assert says in told(provider)
    assert (await ada.get("/v1/confirmations"))["data"] == []


async def test_a_tool_that_no_rule_names_is_neither_offered_nor_run(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("send", {"marker": ada.tenant_id})]), Text("Done."))
    run = await ada.ask("send", agent="hasty")

    assert [tool["function"]["name"] for tool in provider.requests[0].body["tools"]] == ["pay"]
    assert run["tool_calls"][0]["status"] == "denied"
    assert effects("send", ada.tenant_id) == []


async def test_deny_beats_a_pattern_that_allows(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("delete", {"marker": ada.tenant_id})]), Text("Done."))
    run = await ada.ask("delete", agent="trusting")

    offered = {tool["function"]["name"] for tool in provider.requests[0].body["tools"]}
    assert "send" in offered
    assert "delete" not in offered
    assert run["tool_calls"][0]["status"] == "denied"
    assert effects("delete", ada.tenant_id) == []


async def test_many_calls_in_one_answer_each_get_their_result(ada: Caller, provider: ScriptedProvider) -> None:
    calls = [("look_up", {"marker": f"m{number}"}) for number in range(5)]
    provider.script(ToolCalls(calls, text="Looking.", ids=["same"] * 5), Text("Done."))
    run = await ada.ask("look them up")

    messages = provider.requests[-1].body["messages"]
    asked = next(message for message in messages if message.get("tool_calls"))
    results = [message for message in messages if message["role"] == "tool"]
    assert asked["content"] == "Looking."
    assert [call["id"] for call in asked["tool_calls"]] == [result["tool_call_id"] for result in results]
    assert len({result["tool_call_id"] for result in results}) == 5, "a provider that repeats its ids confuses nobody"
    assert [json.loads(result["content"])["found"] for result in results] == [f"m{number}" for number in range(5)]
    assert run["reply"] == "Done."


async def test_a_flood_of_calls_is_cut_and_the_rest_is_denied(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"marker": str(number)}) for number in range(40)]), Text("Done."))
    run = await ada.ask("look them all up")

    statuses = [call["status"] for call in run["tool_calls"]]
    assert statuses == ["succeeded"] * 32 + ["denied"] * 8
    assert run["reply"] == "Done."
