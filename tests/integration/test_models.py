"""Models that fail: the step is tried again for as long as the agent's patience, then a polite reply; never a trace."""

import asyncio

import pytest

from holdfast.llm.prompt import TRANSPARENCY
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Cut, EmptyChoices, Garbage, Hang, HttpError, Reply, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller


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
