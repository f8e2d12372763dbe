"""What a new message does to a busy conversation, and what stops a run."""

import asyncio
from pathlib import Path

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang, Reply, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage


def users(provider: ScriptedProvider, request: int = -1) -> list[str]:
    """What the model was shown of what users wrote."""
    return [message["content"] for message in provider.requests[request].body["messages"] if message["role"] == "user"]


async def sending_slowly(caller: Caller, provider: ScriptedProvider, release: Path, agent: str) -> Json:
    """A run in the middle of a tool, which ends when the file `release` is there."""
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    sent = (await caller.send("first", agent=agent)).json()
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    return dict(sent)


async def test_messages_steer_the_turn_that_is_running(ada: Caller, provider: ScriptedProvider, tmp_path: Path) -> None:
    first = await sending_slowly(ada, provider, tmp_path / "release", "steered")
    conversation = first["conversation_id"]
    joined = [await ada.start(text, agent="steered", conversation_id=conversation) for text in ("second", "third")]
    (tmp_path / "release").touch()
    run = await ada.ended(first["run_id"])
    merged = [await ada.ended(one) for one in joined]

    assert run["reply"] == "You said: third"
    assert users(provider) == ["first", "second", "third"]
    assert [(one["status"], one["merged_into"], one["reply"]) for one in merged] == [("merged", run["id"], None)] * 2
    assert provider.calls == 2
    waited = await ada.send("fourth", agent="steered", conversation_id=conversation, wait=30)
    assert waited.json()["reply"] == "You said: fourth"
    assert users(provider) == ["first", "second", "third", "fourth"]


async def test_whoever_waits_for_a_message_that_joined_gets_the_answer(
    ada: Caller, provider: ScriptedProvider, tmp_path: Path
) -> None:
    first = await sending_slowly(ada, provider, tmp_path / "release", "steered")
    waiting = asyncio.create_task(
        ada.send("second", agent="steered", conversation_id=first["conversation_id"], wait=30)
    )
    await until(lambda: _has_runs(ada, 2))
    (tmp_path / "release").touch()
    answer = (await waiting).json()

    assert (answer["id"], answer["reply"]) == (first["run_id"], "You said: second")


async def test_a_message_that_comes_too_late_to_steer_is_answered_by_itself(
    ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(Hang())
    first = (await ada.send("first", agent="steered")).json()
    await until(lambda: provider.calls == 1)
    second = await ada.start("second", agent="steered", conversation_id=first["conversation_id"])
    provider.release()

    assert (await ada.ended(second))["status"] in ("completed", "merged")
    replies = [message["text"] for message in await _said(ada, first, "assistant")]
    assert len(replies) in (1, 2)
    assert replies[-1] == "You said: second"


async def test_a_message_interrupts_the_turn_that_is_running(
    ada: Caller, provider: ScriptedProvider, tmp_path: Path
) -> None:
    first = await sending_slowly(ada, provider, tmp_path / "release", "interrupted")
    second = await ada.start("second", agent="interrupted", conversation_id=first["conversation_id"])
    run = await ada.ended(second)
    stopped = await ada.get(f"/v1/runs/{first['run_id']}")
    (tmp_path / "release").touch()

    assert run["reply"] == "You said: second"
    assert (stopped["status"], stopped["cancelled_by"]) == ("cancelled", "ada")
    assert stopped["tool_calls"][0]["status"] == "ambiguous", "it was cut off after its effect"
    (told,) = [message for message in provider.requests[-1].body["messages"] if message["role"] == "tool"]
    assert "outcome is unknown" in told["content"]


async def test_a_busy_conversation_refuses_a_message_and_stores_nothing(
    ada: Caller, provider: ScriptedProvider, tmp_path: Path
) -> None:
    first = await sending_slowly(ada, provider, tmp_path / "release", "refusing")
    refused = await ada.send("second", agent="refusing", conversation_id=first["conversation_id"], key="k")
    assert (refused.status_code, "busy" in refused.json()["detail"]) == (409, True)
    assert len(await _said(ada, first, "user")) == 1

    (tmp_path / "release").touch()
    await ada.ended(first["run_id"])
    accepted = await ada.send("second", agent="refusing", conversation_id=first["conversation_id"], key="k", wait=30)
    assert accepted.json()["reply"] == "You said: second"


async def test_of_duplicates_of_a_message_none_is_refused_for_the_others_sake(
    ada: Caller, provider: ScriptedProvider
) -> None:
    first = await ada.ask("first", agent="refusing")
    answers = await asyncio.gather(
        *(
            ada.send("second", agent="refusing", conversation_id=first["conversation_id"], key="k", wait=30)
            for _ in range(8)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await _said(ada, first, "assistant")) == 2


async def test_a_message_takes_back_a_call_that_waits_for_a_person(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Not paid, then."))
    first = await ada.ask("pay", agent="withdrawing")
    asked = await ada.only_pending(first)
    second = await ada.start("no, wait", agent="withdrawing", conversation_id=first["conversation_id"])
    first, run = await ada.ended(first["id"]), await ada.ended(second)

    assert (first["tool_calls"][0]["status"], first["reply"]) == ("withdrawn", "Not paid, then.")
    assert "wrote again" in first["tool_calls"][0]["error"]
    assert run["reply"] == "You said: no, wait"
    late = await ada.decide(asked)
    assert (late.status_code, "withdrawn" in late.json()["detail"]) == (409, True)
    assert effects("pay", ada.tenant_id) == []


# Cancelling


async def cancel(caller: Caller, run_id: str) -> Json:
    response = await caller.http.post(f"/v1/runs/{run_id}/cancel")
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_cancelled_run_takes_no_further_step(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay")
    await cancel(ada, run["id"])
    run = await ada.ended(run["id"])

    assert (run["status"], run["cancelled_by"], run["error"]) == ("cancelled", "ada", "cancelled")
    assert [call["status"] for call in run["tool_calls"]] == ["withdrawn"]
    assert await cancel(ada, run["id"]) == run, "once more changes nothing"
    assert provider.calls == 1
    assert (await ada.ask("go on", conversation_id=run["conversation_id"]))["reply"] == "You said: go on"
    recorded = await stage.rows(
        "SELECT person FROM audit WHERE run_id = $1 AND outcome = 'cancel requested'", run["id"]
    )
    assert [row["person"] for row in recorded] == ["ada"]


async def test_cancelling_closes_the_providers_connection(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Hang())
    run_id = await ada.start("hello")
    await until(lambda: provider.calls == 1)
    await cancel(ada, run_id)

    assert (await ada.ended(run_id))["status"] == "cancelled"
    await until(lambda: provider.abandoned == 1)


async def test_a_run_is_cancelled_before_it_begins(ada: Caller, provider: ScriptedProvider, tmp_path: Path) -> None:
    first = await sending_slowly(ada, provider, tmp_path / "release", "support")
    second, third = [await ada.start(text, conversation_id=first["conversation_id"]) for text in ("second", "third")]
    await cancel(ada, second)
    assert (await ada.ended(second))["status"] == "cancelled"

    (tmp_path / "release").touch()
    assert (await ada.ended(third))["reply"] == "You said: third"
    assert "second" not in users(provider) or users(provider) == ["first", "second", "third"]


async def test_nobody_cancels_what_is_not_theirs(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run = await ada.ask("hello")
    mallory = await stage.caller(f"{ada.tenant_id}-other")
    for run_id in (run["id"], "run_unknown"):
        assert (await mallory.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 404


# Limits


async def test_a_run_that_has_made_its_tool_calls_answers_with_what_it_has(
    ada: Caller, provider: ScriptedProvider
) -> None:
    look: Reply = ToolCalls([("look_up", {"marker": "m"})])
    provider.script(look, look, Text("That is what I found."))
    run = await ada.ask("look", agent="frugal")

    assert (run["status"], run["reply"], run["degraded"]) == ("completed", "That is what I found.", False)
    assert [call["status"] for call in run["tool_calls"]] == ["succeeded"] * 2
    assert provider.requests[-1].body.get("tool_choice") == "none"


async def test_calls_beyond_the_limit_are_not_run(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"marker": str(n)}) for n in range(4)]), Text("Done."))
    run = await ada.ask("look", agent="frugal")

    assert [call["status"] for call in run["tool_calls"]] == ["succeeded"] * 2 + ["denied"] * 2
    assert run["reply"] == "Done."


async def test_a_run_out_of_time_withdraws_what_waits_and_says_so(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("never asked for"))
    run = await ada.ended(await ada.start("pay", agent="brief"))

    assert (run["status"], run["error"], run["degraded"]) == ("completed", "out_of_time", True)
    assert "took longer than I may take" in run["reply"]
    assert [call["status"] for call in run["tool_calls"]] == ["withdrawn"]
    assert await ada.pending(run) == []
    assert provider.calls == 1


async def _has_runs(caller: Caller, count: int) -> bool:
    return len((await caller.get("/v1/runs"))["data"]) == count


async def _said(caller: Caller, run: Json, role: str) -> list[Json]:
    told = await caller.get(f"/v1/conversations/{run['conversation_id']}/messages")
    return [message for message in told["data"] if message["role"] == role]
