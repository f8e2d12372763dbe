"""What chat clients are promised, whichever protocol they speak: `tests/clients` has the clients themselves."""

import asyncio
import json
from typing import Any

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.reading import told_in
from tests.harness.stage import Stage


def chat(id_: str, *said: str, agent: str = "support", **others: Any) -> Json:
    """A request of the AI SDK; each message goes by its own words."""
    messages = [{"id": text, "role": "user", "parts": [{"type": "text", "text": text}]} for text in said]
    return {"id": id_, "agent": agent, "messages": messages, **others}


def run(thread: str, run_id: str, text: str = "pay", **others: Any) -> Json:
    """A request of AG-UI."""
    messages = [{"id": "u", "role": "user", "content": text}]
    return {"threadId": thread, "runId": run_id, "messages": messages, **others}


async def test_those_who_begin_a_thread_at_once_mean_the_same(ada: Caller) -> None:
    posts = [ada.http.post("/api/chat", json=chat("new", text)) for text in ("one", "two") * 2]
    answers = await asyncio.gather(*posts)
    runs = (await ada.get("/v1/runs"))["data"]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({run["conversation_id"] for run in runs}) == 1
    assert len(runs) == 2, "each message once, however often it came"
    assert len({told_in(answer)[0]["messageId"] for answer in answers}) == 2
    assert answers[0].headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answers[0].text.endswith("data: [DONE]\n\n")


async def test_the_thread_of_somebody_else_is_another_one(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(ada.tenant_id, person="bob")
    for caller in (ada, bob):
        told_in(await caller.http.post("/agui/support", json=run("a-thread", "r", f"I am {caller.person}")))
    runs = (await ada.get("/v1/runs"))["data"]

    assert len({one["conversation_id"] for one in runs}) == len(runs) == 2


async def test_who_may_not_decide_is_not_asked_and_reads_on(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    bob = await stage.caller(ada.tenant_id, person="bob", roles=["billing"])
    reading = asyncio.create_task(ada.http.post("/agui/guarded", json=run("a-thread", "r")))
    found: list[Json] = []

    async def is_asked() -> bool:
        found[:] = (await bob.get("/v1/confirmations", status="pending"))["data"]
        return bool(found)

    await until(is_asked)
    assert not reading.done()
    await bob.decide(found[0])
    events = told_in(await reading)

    assert events[-1]["outcome"] == {"type": "success"}
    assert [json.loads(one["content"]) for one in events if one["type"] == "TOOL_CALL_RESULT"] == [{"paid": 1}]
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_what_was_decided_elsewhere_is_read_on_by_who_was_asked(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    asked = told_in(await ada.http.post("/agui/support", json=run("a-thread", "r1")))
    (interrupt,) = asked[-1]["outcome"]["interrupts"]
    (waiting,) = (await ada.get("/v1/confirmations", status="pending"))["data"]
    await ada.decide(waiting, "reject", reason="on the phone")

    def answer(**said: Any) -> Json:
        return run("a-thread", "r2", resume=[{"interruptId": interrupt["id"], **said}])

    late = await ada.http.post("/agui/support", json=answer(status="resolved", payload={"approved": True}))
    assert late.status_code == 409
    unfit = await ada.http.post("/agui/support", json=answer(status="resolved", payload={"approved": "yes"}))
    assert (unfit.status_code, unfit.json()["errors"][0]["field"]) == (422, "resume.0.payload.approved")
    events = told_in(await ada.http.post("/agui/support", json=answer(status="cancelled")))
    assert events[-1]["outcome"] == {"type": "success"}
    assert "on the phone" in json.dumps(events)
    # Read from the beginning, it asks no more.
    again = told_in(await ada.http.post("/agui/support", json=run("a-thread", "r1")))
    assert again[-1]["outcome"] == {"type": "success"}
    assert effects("pay", ada.tenant_id) == []


async def test_everything_that_a_step_asks_is_asked_at_once(ada: Caller, provider: ScriptedProvider) -> None:
    calls = [("pay", {"marker": ada.tenant_id, "amount": amount}) for amount in (1, 2)]
    provider.script(ToolCalls([*calls, ("look_up", {"marker": "m"})]), Text("Done."))
    asked = told_in(await ada.http.post("/agui/support", json=run("a-thread", "r1")))
    interrupts = asked[-1]["outcome"]["interrupts"]
    approved = {one["id"]: one["metadata"]["arguments"]["amount"] == 1 for one in interrupts}
    resume = [{"interruptId": key, "status": "resolved", "payload": {"approved": yes}} for key, yes in approved.items()]
    events = told_in(await ada.http.post("/agui/support", json=run("a-thread", "r2", resume=resume)))
    results = [one["toolCallId"] for one in [*asked, *events] if one["type"] == "TOOL_CALL_RESULT"]

    assert len(interrupts) == 2
    assert len(results) == len(set(results)) == 3, "each result once, in one of the two streams"
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_chat_is_resumed_and_never_rewritten(ada: Caller) -> None:
    first = await ada.http.post("/api/chat?agent=support", json=chat("a-chat", "hello", agent="support"))
    edited = await ada.http.post("/api/chat", json=chat("a-chat", "hello", "other", messageId="hello"))
    anew = await ada.http.post("/api/chat", json=chat("a-chat", "hello", trigger="regenerate-message"))
    nobody = await ada.http.post("/api/chat", json={**chat("a-chat", "hi"), "agent": None})
    over = await ada.http.get("/api/chat/a-chat/stream")
    unheard = await ada.http.get("/api/chat/unheard-of/stream")
    again = await ada.http.get("/api/chat/a-chat/stream?ended=true")

    assert [answer.status_code for answer in (edited, anew, nobody)] == [422, 422, 422]
    assert [(answer.status_code, answer.content) for answer in (over, unheard)] == [(204, b"")] * 2
    # However the text came in pieces, it is the same.
    assert [one for one in told_in(again) if one["type"] != "text-delta"] == [
        one for one in told_in(first) if one["type"] != "text-delta"
    ]
    assert len((await ada.get("/v1/runs"))["data"]) == 1


async def test_a_reason_that_can_not_be_kept_decides_nothing(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    asked = told_in(await ada.http.post("/api/chat", json=chat("a-chat", "pay")))
    (key,) = (one["approvalId"] for one in asked if one["type"] == "tool-approval-request")
    # As JavaScript cuts a text in the middle of an emoji.
    approval = {"id": key, "approved": False, "reason": "no \ud83d"}
    parts = [{"type": "dynamic-tool", "state": "approval-responded", "approval": approval}]
    body = {"id": "a-chat", "messages": [{"id": asked[0]["messageId"], "role": "assistant", "parts": parts}]}
    answer = await ada.http.post("/api/chat", content=json.dumps(body), headers={"content-type": "application/json"})

    assert answer.status_code == 422
    assert len((await ada.get("/v1/confirmations", status="pending"))["data"]) == 1


async def test_a_yes_in_the_chat_goes_on_with_the_run_that_it_decides(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    asked = told_in(await ada.http.post("/api/chat", json=chat("a-chat", "pay")))
    went_on = told_in(await ada.http.post("/api/chat", json=chat("a-chat", "pay", "yes")))

    assert "tool-approval-request" in [one["type"] for one in asked]
    assert "tool-approval-request" not in [one["type"] for one in went_on]
    assert went_on[0]["messageId"] != asked[0]["messageId"], "it answers a message of its own"
    assert [one["output"] for one in went_on if one["type"] == "tool-output-available"] == [{"paid": 1}]
    assert [one["delta"] for one in went_on if one["type"] == "text-delta"] == ["Done."]
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_yes_is_to_what_the_history_shows(ada: Caller, provider: ScriptedProvider) -> None:
    calls = [ToolCalls([("pay", {"marker": ada.tenant_id, "amount": amount})]) for amount in (1, 1000)]
    provider.script(*calls, Text("Done."))
    started, *_ = told_in(await ada.http.post("/api/chat", json=chat("a-chat", "pay")))
    conversation, first = started["messageMetadata"]["conversationId"], await ada.confirmation_of(started["messageId"])
    await ada.decide(first, "reject")
    found: list[Json] = []

    async def is_asked_anew() -> bool:
        found[:] = [one for one in (await ada.get("/v1/confirmations", status="pending"))["data"] if one != first]
        return bool(found)

    await until(is_asked_anew)

    def in_chat(call_id: str) -> Json:
        part = {"type": "dynamic-tool", "toolCallId": call_id, "state": "approval-requested"}
        body = chat("a-chat", "pay", "yes")
        body["messages"].insert(1, {"id": "a", "role": "assistant", "parts": [part]})
        return body

    def in_ag_ui(call_id: str) -> Json:
        call = {"id": call_id, "type": "function", "function": {"name": "pay", "arguments": "{}"}}
        said = [{"id": "a", "role": "assistant", "toolCalls": [call]}, {"id": "u2", "role": "user", "content": "yes"}]
        return run(conversation, "r2") | {"messages": said}

    for path, body in (("/api/chat", in_chat), ("/agui/support", in_ag_ui)):
        refused = await ada.http.post(path, json=body(first["tool_call_id"]))
        assert (refused.status_code, "did not show" in refused.text) == (409, True)
    assert effects("pay", ada.tenant_id) == []
    told_in(await ada.http.post("/agui/support", json=in_ag_ui(found[0]["tool_call_id"])))
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_a_reply_whose_log_is_gone_is_told_all_the_same(ada: Caller, stage: Stage) -> None:
    body = run("a-thread", "r", "hello")
    told_in(await ada.http.post("/agui/support", json=body))
    for table in ("events", "deltas"):
        await stage.rows(f"DELETE FROM {table} WHERE tenant_id = $1", ada.tenant_id)
    events = told_in(await ada.http.post("/agui/support", json=body))

    assert [one["type"] for one in events] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert events[2]["delta"] == "You said: hello"
