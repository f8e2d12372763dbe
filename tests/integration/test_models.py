"""Models that fail: the step is tried again for as long as the agent's patience, then a polite reply; never a trace."""

import asyncio

import pytest

from holdfast.llm.prompt import TRANSPARENCY
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Cut, EmptyChoices, Garbage, Hang, HttpError, Reply, Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage


@pytest.mark.parametrize(
    "reply", [HttpError(500), HttpError(429), HttpError(503), Cut("half"), Garbage(), EmptyChoices()], ids=repr
)
async def test_a_provider_that_fails_once_goes_unseen(ada: Caller, provider: ScriptedProvider, reply: Reply) -> None:
    provider.script(reply)
    run = await ada.ask("hello")

    assert (run["reply"], run["degraded"]) == ("You said: hello", False)
    assert len(run["steps"]) == 1


async def test_the_fallback_alias_answers_when_the_first_fails(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(HttpError(500))
    run = await ada.ask("hello")

    assert [request.model for request in provider.requests] == ["scripted-quality", "scripted-fast"]
    assert run["steps"][0]["model"] == "scripted-fast"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_can_never_succeed_is_not_asked_again(ada: Caller, provider: ScriptedProvider, status: int) -> None:
    provider.default = lambda _: HttpError(status)
    run = await ada.ask("hello")

    assert (run["status"], run["degraded"]) == ("completed", True)
    assert provider.calls <= 2, "one for each alias"


async def test_beyond_the_agents_patience_the_reply_is_polite_and_marked(
    ada: Caller, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: HttpError(500, "secret stack trace")
    run = await ada.ask("hello", agent="impatient")

    assert (run["status"], run["degraded"]) == ("completed", True)
    assert run["reply"].startswith("I'm sorry")
    assert run["error"] == "models_exhausted"
    assert "secret" not in str(run)
    assert provider.calls >= 4, "it was tried again before giving up"
    transcript = await ada.get(f"/v1/conversations/{run['conversation_id']}/messages")
    assert transcript["data"][-1]["text"] == run["reply"]


async def test_a_hanging_provider_is_left_when_the_patience_ends(ada: Caller, provider: ScriptedProvider) -> None:
    provider.default = lambda _: Hang()
    run = await ada.ask("hello", agent="impatient")

    assert (run["status"], run["degraded"]) == ("completed", True)


async def test_after_a_degraded_run_the_conversation_goes_on(ada: Caller, provider: ScriptedProvider) -> None:
    provider.default = lambda _: HttpError(500)
    first = await ada.ask("hello", agent="impatient")
    provider.default = lambda request: Text(f"heard {request.last_text}")
    second = await ada.ask("again", agent="impatient", conversation_id=first["conversation_id"])

    assert second["reply"] == "heard again"


async def test_at_most_max_steps_model_calls_are_made(ada: Caller, provider: ScriptedProvider) -> None:
    provider.default = lambda _: ToolCalls([("look_up", {"marker": ada.tenant_id})])
    run = await ada.ask("look forever")

    assert provider.calls == 5
    assert provider.requests[-1].body["tool_choice"] == "none", "the last call is asked to answer without tools"
    assert (run["status"], run["degraded"], run["error"]) == ("completed", True, "out_of_steps")
    assert [call["status"] for call in run["tool_calls"]] == ["succeeded"] * 4 + ["denied"]


async def test_an_agent_may_have_fewer_steps(ada: Caller, provider: ScriptedProvider) -> None:
    def look_until_told_not_to(request: RecordedRequest) -> Reply:
        may_look = request.body["tool_choice"] == "auto"
        return ToolCalls([("look_up", {"marker": "m"})]) if may_look else Text("That is all I found.")

    provider.default = look_until_told_not_to
    run = await ada.ask("look", agent="two_steps")

    assert provider.calls == 2
    assert (run["reply"], run["degraded"]) == ("That is all I found.", False)


async def test_an_empty_answer_is_no_reply(ada: Caller, provider: ScriptedProvider) -> None:
    provider.default = lambda _: Text("")
    run = await ada.ask("hello")

    assert run["degraded"]
    assert run["reply"]


async def test_the_system_prompt_has_its_parts_and_the_transparency_clause_last(
    ada: Caller, provider: ScriptedProvider
) -> None:
    await ada.ask("hello")

    system = provider.requests[0].body["messages"][0]
    assert system["role"] == "system"
    assert system["content"].startswith("You help.")
    assert "Your name is Mira. Your role: Support agent." in system["content"]
    assert "Warm, brief, exact." in system["content"]
    assert system["content"].endswith(TRANSPARENCY)


async def test_a_model_that_fails_between_tools_repeats_no_tool(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("send", {"marker": ada.tenant_id})]), HttpError(500), HttpError(500), Text("Sent."))
    run = await ada.ask("send it", agent="trusting")

    assert run["reply"] == "Sent."
    assert provider.calls == 4
    assert len(effects("send", ada.tenant_id)) == 1


async def test_messages_at_once_each_get_their_own_answer(ada: Caller) -> None:
    runs = await asyncio.gather(*(ada.ask(f"number {number}") for number in range(20)))

    assert [run["reply"] for run in runs] == [f"You said: number {number}" for number in range(20)]


async def test_a_run_tells_which_deployments_were_asked_and_why_one_did_not_answer(
    ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(Cut("half of an answer, or less"), Text("whole"))
    run = await ada.ask("hello")

    (step,) = run["steps"]
    assert [(attempt["deployment"], attempt["failure"]) for attempt in step["attempts"]] == [
        ("quality#1", "the answer broke off (MidStreamFallbackError)"),
        ("fast#1", None),
    ]
    assert (step["alias"], step["deployment"], step["model"]) == ("quality", "fast#1", "scripted-fast")
    assert step["usage"] == {**run["usage"], "completion_tokens": len("whole") // 4, "is_estimated": False}
    assert 0 <= step["first_token_ms"] <= step["latency_ms"]
    assert run["reply"] == "whole"


async def test_arguments_that_are_not_json_are_given_back_twice_and_then_no_tool_may_be_called(
    ada: Caller, provider: ScriptedProvider
) -> None:
    def broken_while_it_may(request: RecordedRequest) -> Reply:
        may_call = request.body["tool_choice"] == "auto"
        return ToolCalls([("look_up", '{"marker": "m')]) if may_call else Text("I can't look it up.")

    provider.default = broken_while_it_may
    run = await ada.ask("look")

    assert [request.body["tool_choice"] for request in provider.requests] == ["auto", "auto", "none"]
    assert all("not valid JSON" in request.last_text for request in provider.requests[1:])
    assert (run["reply"], run["degraded"]) == ("I can't look it up.", False)
    assert [call["status"] for call in run["tool_calls"]] == ["failed", "failed"]


async def test_a_run_that_is_cancelled_in_mid_answer_closes_the_providers_connection(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: Stalls(Text("one two three four"), after=3)
    run_id = await ada.start("hello")
    await until(lambda: provider.in_flight == 1)
    run = await ada.get(f"/v1/runs/{run_id}")
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:{run['agent']}:{run['message_id']}").cancel()

    await until(lambda: provider.abandoned == 1)
    assert (await ada.ended(run_id))["status"] == "cancelled"
    assert provider.calls == 1

    async def is_recorded() -> bool:
        rows = await stage.rows("SELECT outcome FROM audit WHERE run_id = $1 AND kind = 'model_call'", run_id)
        return [row["outcome"] for row in rows] == ["cancelled"]

    await until(is_recorded)
