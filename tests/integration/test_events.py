"""The event log of a run: complete, in order, without a gap, and the same for whoever reads it whenever."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.store import event_log
from holdfast.store.event_log import Try
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang, HttpError, Slow, Stalls, Text, ToolCalls
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.reading import is_gapless, parsed, read, shown, types, whole_log
from tests.harness.stage import Stage

PLAIN = ["run.queued", "run.started", "message.delta", "message.completed", "run.completed"]


async def test_a_plain_message(ada: Caller) -> None:
    run = await ada.ask("hello")
    log = await whole_log(ada, run["id"])

    assert types(log) == PLAIN
    assert is_gapless(log)
    assert log[0].data == {
        "run_id": run["id"],
        "conversation_id": run["conversation_id"],
        "message_id": run["message_id"],
        "agent": "support",
    }
    deltas = [told for told in log if told.type == "message.delta"]
    assert "".join(told.data["text"] for told in deltas) == run["reply"] == shown(log)
    transcript = await ada.get(f"/v1/conversations/{run['conversation_id']}/messages")
    assert log[-1].data == {"reply_id": transcript["data"][1]["id"], "degraded": False, "error": None}


async def test_a_tool(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"marker": "m"})], text="Let me see."), Text("Found."))
    run = await ada.ask("look")
    log = await whole_log(ada, run["id"])

    assert types(log) == [
        "run.queued",
        "run.started",
        "message.delta",
        "message.completed",
        "tool_call.proposed",
        "tool_call.started",
        "tool_call.succeeded",
        "message.delta",
        "message.completed",
        "run.completed",
    ]
    assert is_gapless(log)
    proposed, started, succeeded = log[4:7]
    call_id = run["tool_calls"][0]["id"]
    assert proposed.data == {
        "tool_call_id": call_id,
        "step": 1,
        "tool": "look_up",
        "arguments": {"marker": "m"},
        "effect": "read",
    }
    assert started.data == {"tool_call_id": call_id, "tool": "look_up", "attempt": 1}
    assert succeeded.data["result"] == '{"found":"m"}'
    assert {told.data["attempt"] for told in log if told.type == "message.delta"} == {1, 2}


async def test_calls_that_go_no_further(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("nothing", {}), ("look_up", "{"), ("fail", {"marker": "m"})]), Text("Well."))
    log = await whole_log(ada, (await ada.ask("try"))["id"])
    calls = [(told.type, told.data["tool"]) for told in log if told.type.startswith("tool_call.")]

    assert calls[:5] == [
        ("tool_call.proposed", "nothing"),
        ("tool_call.denied", "nothing"),
        ("tool_call.proposed", "look_up"),
        ("tool_call.failed", "look_up"),
        ("tool_call.proposed", "fail"),
    ]
    assert calls[5:] in ([("tool_call.started", "fail"), ("tool_call.failed", "fail")], [])


ASKED = ["run.queued", "run.started", "tool_call.proposed", "confirmation.requested"]


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        ("approve", ["confirmation.decided", "tool_call.started", "tool_call.succeeded"]),
        ("edit", ["confirmation.decided", "tool_call.started", "tool_call.succeeded"]),
        ("reject", ["confirmation.decided", "tool_call.rejected"]),
        ("respond", ["confirmation.decided", "tool_call.rejected"]),
    ],
)
async def test_a_confirmation(ada: Caller, provider: ScriptedProvider, decision: str, told: list[str]) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    run = await ada.ask("pay")
    asked = await ada.only_pending(run)
    body = {"arguments": {"amount": 2, "marker": "n"}} if decision == "edit" else {}
    await ada.decide(asked, decision, reason="since", **body)
    await ada.ended(run["id"])
    log = await whole_log(ada, run["id"])

    assert types(log) == [*ASKED, *told, "message.delta", "message.completed", "run.completed"]
    assert is_gapless(log)
    requested, decided = log[3].data, log[4].data
    same = ("arguments", "arguments_digest", "deadline", "on_deadline", "rule", "tool", "tool_call_id")
    assert {name: requested[name] for name in same if name != "deadline"} == {
        name: asked[name] for name in same if name != "deadline"
    }
    assert list(requested["arguments"]) == ["marker", "amount"], "in the order of the signature"
    assert (decided["decision"], decided["reason"]) == (decision, "since")
    assert "ada" not in json.dumps([each.data for each in log]).replace(ada.tenant_id, "")


async def test_the_same_decision_again_is_told_once(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    run = await ada.ask("pay")
    asked = await ada.only_pending(run)
    answers = await asyncio.gather(*(ada.decide(asked) for _ in range(5)))
    await ada.ended(run["id"])

    assert {answer.status_code for answer in answers} == {200}
    assert types(await whole_log(ada, run["id"])).count("confirmation.decided") == 1


async def test_a_cancelled_run(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run = await ada.ask("pay")
    await ada.http.post(f"/v1/runs/{run['id']}/cancel")
    await ada.ended(run["id"])
    log = await whole_log(ada, run["id"])

    assert types(log) == [*ASKED, "confirmation.withdrawn", "tool_call.withdrawn", "run.cancelled"]
    assert is_gapless(log)


async def test_what_streamed_of_a_run_that_is_cancelled_is_void(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four five six."), after=4))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    log = [await anext(reading) for _ in range(3)]
    await ada.http.post(f"/v1/runs/{run_id}/cancel")
    log += [told async for told in reading]

    assert types(log) == ["run.queued", "run.started", "message.delta", "message.reset", "run.cancelled"]
    assert shown(log) == ""
    assert is_gapless(log)


async def test_a_model_that_never_answers(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(*[HttpError(400, "no")] * 10)
    run = await ada.ask("hello")
    log = await whole_log(ada, run["id"])

    assert types(log) == ["run.queued", "run.started", "message.completed", "run.completed"]
    assert log[2].data == {"step": None, "text": run["reply"]}
    assert (log[3].data["degraded"], log[3].data["error"]) == (True, "models_exhausted")


async def test_a_run_that_was_terminated_from_outside(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three."), after=4))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    log = [await anext(reading) for _ in range(3)]
    run = await ada.get(f"/v1/runs/{run_id}")
    workflow = f"{ada.tenant_id}:support:{run['message_id']}"
    await stage.temporal.get_workflow_handle(workflow).terminate("by a test")
    log += [told async for told in reading]

    assert types(log)[-2:] == ["message.reset", "run.failed"]
    assert is_gapless(log)


async def test_a_message_that_waits_and_one_that_joins(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Slow(Text("First."), 60), Text("Second."))
    first = await ada.start("one")
    conversation = (await ada.get(f"/v1/runs/{first}"))["conversation_id"]
    await until(lambda: provider.calls == 1)
    second = await ada.start("two", conversation_id=conversation)
    reading = read(ada, second)
    assert (await anext(reading)).type == "run.queued"
    provider.release()
    log = [told async for told in reading]

    assert types(log) == PLAIN[1:]
    assert types(await whole_log(ada, first)) == PLAIN


async def test_a_message_that_joins_the_one_before(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Slow(ToolCalls([("look_up", {"marker": "m"})]), 60), Text("Both."))
    first = await ada.start("one", agent="steered")
    conversation = (await ada.get(f"/v1/runs/{first}"))["conversation_id"]
    await until(lambda: provider.calls == 1)
    second = await ada.start("two", agent="steered", conversation_id=conversation)
    provider.release()
    log = await whole_log(ada, second)

    assert types(log) == ["run.queued", "run.merged"]
    message_id = (await ada.get(f"/v1/runs/{second}"))["message_id"]
    assert log[1].data == {
        "run_id": second,
        "conversation_id": conversation,
        "message_id": message_id,
        "merged_into": first,
    }
    assert shown(await whole_log(ada, first)) == "Both."


async def test_a_decision_in_the_chat(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    run = await ada.ask("pay")
    yes = (await ada.send("yes", conversation_id=run["conversation_id"])).json()["run_id"]

    assert types(await whole_log(ada, yes)) == ["run.merged"]
    assert types(await whole_log(ada, run["id"]))[4] == "confirmation.decided"


async def test_a_deadline(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Well."))
    run = await ada.ended(await ada.start("pay", agent="hasty"))
    log = await whole_log(ada, run["id"])

    assert types(log)[:6] == [*ASKED, "confirmation.expired", "tool_call.expired"]
    assert types(log)[6:] == PLAIN[2:]
    assert is_gapless(log)


async def test_an_unknown_outcome_and_what_a_person_says_of_it(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("hang_sending", {"marker": f"/nowhere/{ada.tenant_id}"})]), Text("Good."))
    run = await ada.ask("send")
    call = run["tool_calls"][0]
    await ada.http.post(f"/v1/tool-calls/{call['id']}/resolution", json={"outcome": "committed", "evidence": "seen"})
    await ada.ended(run["id"])
    told = [each.type for each in await whole_log(ada, run["id"]) if "." in each.type and each.type[0] in "tc"]

    assert told == [
        "tool_call.proposed",
        "tool_call.started",
        "tool_call.ambiguous",
        "confirmation.requested",
        "confirmation.decided",
        "tool_call.succeeded",
    ]


async def test_what_is_done_again_is_told_once(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    """A workflow that an operator resets does all its steps again."""
    provider.script(ToolCalls([("look_up", {"marker": "m"})], text="Let me see."), Text("Found."))
    run = await ada.ask("look")
    log = await whole_log(ada, run["id"])
    await stage.reset_to_the_beginning(f"{ada.tenant_id}:support:{run['message_id']}")

    assert await whole_log(ada, run["id"]) == log


async def test_who_is_thought_to_be_dead_writes_nothing_into_its_successors_text(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(Hang())
    run_id = await ada.start("hello")
    await until(lambda: provider.calls == 1)
    began = datetime.now(UTC)
    old = Try(ada.tenant_id, run_id, 1, began)
    new = Try(ada.tenant_id, run_id, 1, began + timedelta(seconds=5))
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert await event_log.open_stream(connection, old, "a") == 1
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert await event_log.open_stream(connection, new, "b") == 2
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert not await event_log.write(connection, old, 1, "c")
        assert await event_log.open_stream(connection, old, "d") is None
        assert not await event_log.void(connection, old)
        assert await event_log.write(connection, new, 2, "e")
    await ada.http.post(f"/v1/runs/{run_id}/cancel")
    log = await whole_log(ada, run_id)

    assert [(told.type, told.data.get("text"), told.data.get("attempt")) for told in log[2:-1]] == [
        ("message.delta", "a", 1),
        ("message.reset", None, 1),
        ("message.delta", "b", 2),
        ("message.delta", "e", 2),
        ("message.reset", None, 2),
    ]
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert await event_log.open_stream(connection, new, "f") is None, "the log is closed"


async def test_resuming_at_every_number_gives_the_rest(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})], text="Paying."), Text("Done."))
    run = await ada.ask("pay")
    await ada.decide(await ada.only_pending(run))
    await ada.ended(run["id"])
    log = await whole_log(ada, run["id"])

    assert len(log) >= 10
    for number in range(len(log) + 3):
        assert await whole_log(ada, run["id"], after=number) == log[number:]
    by_query = await ada.http.get(f"/v1/runs/{run['id']}/events", params={"after": 4})
    assert by_query.text.startswith(f"event: {log[4].type}\n")


async def test_headers(ada: Caller) -> None:
    run = await ada.ask("hello")
    response = await ada.http.get(f"/v1/runs/{run['id']}/events")

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert set(response.headers["cache-control"].split(", ")) == {"no-cache", "no-transform"}


@pytest.mark.parametrize("given", ["-1", "x", "1.5", "٣", "1" * 30, "0x1"])
async def test_a_last_event_id_that_is_none_is_refused(ada: Caller, given: str) -> None:
    run = await ada.ask("hello")
    path = f"/v1/runs/{run['id']}/events"
    by_header = await ada.http.get(path, headers=[(b"last-event-id", given.encode())])
    by_query = await ada.http.get(path, params={"after": given})

    assert (by_header.status_code, by_query.status_code) == (422, 422)
    assert by_header.headers["content-type"] == "application/problem+json"
    assert by_header.json()["errors"][0]["field"] == "Last-Event-ID"


async def test_a_foreign_run_is_as_unknown_as_an_unknown_one(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    eve = await stage.caller(f"{ada.tenant_id}-other", "eve")
    unknown = run["id"][:-4] + "0000"
    answers = [await eve.http.get(f"/v1/runs/{run_id}/events") for run_id in (run["id"], unknown)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text.replace(run["id"], unknown) == answers[1].text


async def test_a_message_is_answered_with_a_stream_if_that_is_asked_for(ada: Caller) -> None:
    headers = {"accept": "text/event-stream", "idempotency-key": "one"}
    body = {"agent": "support", "text": "hello"}
    logs = []
    for more in ({}, {}, {"last-event-id": "2"}):
        async with ada.http.stream("POST", "/v1/messages", json=body, headers={**headers, **more}) as response:
            assert (response.status_code, response.headers["x-accel-buffering"]) == (200, "no")
            logs.append([told async for told in parsed(response.aiter_lines())])
    first, again, rest = logs

    assert types(first) == PLAIN
    assert (again, rest) == (first, first[2:]), "the same message, and its one run"
    run = await ada.get(f"/v1/runs/{first[0].data['run_id']}")
    assert (run["reply"], run["message_id"]) == (shown(first), first[0].data["message_id"])
    refused = await ada.http.post("/v1/messages", json={"agent": "nobody", "text": "hello"}, headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


async def test_who_leaves_cancels_nothing(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three."), after=4))
    headers = {"accept": "text/event-stream"}
    async with ada.http.stream(
        "POST", "/v1/messages", json={"agent": "support", "text": "count"}, headers=headers
    ) as response:
        first = await anext(parsed(response.aiter_lines()))
    await until(lambda: provider.in_flight == 1)
    provider.release()
    run = await ada.ended(first.data["run_id"])

    assert (run["status"], run["reply"]) == ("completed", "One two three.")


async def test_a_model_that_breaks_off_is_taken_back(ada: Caller, provider: ScriptedProvider) -> None:
    """The fallback begins anew; the reader sees the text of one model."""
    provider.script(Stalls(Text("One two three four."), after=4, ends=True), Text("All of it."))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    log = [await anext(reading) for _ in range(3)]
    provider.release()
    log += [told async for told in reading]

    assert types(log) == [
        "run.queued",
        "run.started",
        "message.delta",
        "message.reset",
        "message.delta",
        "message.completed",
        "run.completed",
    ]
    assert is_gapless(log)
    assert shown(log) == "All of it." == (await ada.run(run_id))["reply"]
