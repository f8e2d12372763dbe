"""Who may decide, what they may say, and where: roles, four eyes, edits, answers, batches, and the chat."""

import asyncio
from typing import Any

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage

REVOKE = "UPDATE api_keys SET roles = '{}' WHERE tenant_id = $1 AND person = $2 RETURNING key_id"


async def waiting(caller: Caller, provider: ScriptedProvider, **options: Any) -> tuple[Json, Json]:
    """A run that waits for a person to confirm a payment, and its confirmation."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]), Text("Done."))
    run = await caller.ask("pay", **options)
    return run, await caller.only_pending(run)


def paid(caller: Caller) -> int:
    return len(effects("pay", caller.tenant_id))


async def test_only_a_role_that_is_named_may_decide_and_never_ones_own_request(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    stranger = await stage.caller(ada.tenant_id, "stranger", ["sales"])
    herself = await stage.caller(ada.tenant_id, "ada", ["billing"])
    run, asked = await waiting(ada, provider, agent="guarded")

    assert (asked["approvers"], asked["four_eyes"]) == (["billing"], True)
    for caller, said in ((stranger, "roles is needed: billing"), (herself, "your own request")):
        refused = await caller.decide(asked)
        assert refused.status_code == 403
        assert said in refused.json()["detail"]
    assert paid(ada) == 0
    assert (await boss.decide(asked)).status_code == 200
    assert (await ada.ended(run["id"]))["tool_calls"][0]["status"] == "succeeded"
    assert paid(ada) == 1


async def test_a_sender_that_somebody_else_names_does_not_open_the_other_eye(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """The holder of a key writes in another's name: neither of the two may decide."""
    herself = await stage.caller(ada.tenant_id, "ada", ["billing"])
    eve = await stage.caller(ada.tenant_id, "eve", ["billing"])
    _, asked = await waiting(ada, provider, agent="guarded", sender="eve")

    assert asked["requested_by"] == "eve"
    assert [(await caller.decide(asked)).status_code for caller in (herself, eve)] == [403, 403]


async def test_the_deciders_right_is_looked_at_again_when_the_call_is_dispatched(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """The role is taken away between the decision and the dispatch, in the transaction's own moment."""
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    run, asked = await waiting(ada, provider, agent="guarded")
    await boss.get("/v1/confirmations")
    assert await stage.rows(REVOKE, ada.tenant_id, "boss")
    decided = await boss.decide(asked)
    run = await ada.ended(run["id"])

    assert decided.status_code == 200, "the API remembers a key's roles for seconds"
    assert run["tool_calls"][0]["status"] == "denied"
    assert paid(ada) == 0


async def test_an_edit_runs_what_the_person_wrote(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run, asked = await waiting(ada, provider)
    edited = {"marker": ada.tenant_id, "amount": 3}
    decided = await ada.decide(asked, "edit", arguments=edited)
    again = await ada.decide(asked, "edit", arguments=edited)
    otherwise = await ada.decide(asked, "edit", arguments={**edited, "amount": 4})
    run = await ada.ended(run["id"])
    call = run["tool_calls"][0]

    assert [answer.status_code for answer in (decided, again, otherwise)] == [200, 200, 409]
    assert (decided.json()["status"], decided.json()["edited_arguments"]) == ("approved", edited)
    assert decided.json()["arguments"] == asked["arguments"], "the original is kept"
    assert (call["status"], call["arguments"], call["result"]) == ("succeeded", edited, {"paid": 3})
    assert "A person changed the arguments" in provider.requests[-1].last_text
    assert paid(ada) == 1


async def test_an_edit_fills_in_the_tools_defaults(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay_if_much", {"marker": ada.tenant_id, "amount": 700})]), Text("Done."))
    run = await ada.ask("pay", agent="guarded")
    asked = await ada.only_pending(run)
    await ada.decide(asked, "edit", arguments={"marker": ada.tenant_id, "amount": 2})
    run = await ada.ended(run["id"])

    assert asked["rule"] == "pay_if_much: confirm when amount > 100"
    assert run["tool_calls"][0]["result"] == {"paid": 2, "currency": "USD"}


@pytest.mark.parametrize(
    ("decision", "body", "field"),
    [
        ("edit", {}, "arguments"),
        ("edit", {"arguments": {"marker": "m"}}, "arguments"),
        ("edit", {"arguments": {"marker": "m", "amount": "7"}}, "arguments"),
        ("edit", {"arguments": {"marker": "m", "amount": 7, "to": "me"}}, "arguments"),
        ("edit", {"arguments": {"marker": "\x00", "amount": 7}}, "arguments"),
        ("edit", {"arguments": {"marker": "m", "amount": 2**60}}, "arguments"),
        ("edit", {"arguments": ["m", 7]}, "arguments"),
        ("approve", {"arguments": {"marker": "m", "amount": 7}}, "arguments"),
        ("respond", {}, "reason"),
        ("respond", {"reason": "  "}, "reason"),
    ],
)
async def test_what_does_not_fit_decides_nothing(
    ada: Caller, provider: ScriptedProvider, decision: str, body: Json, field: str
) -> None:
    _, asked = await waiting(ada, provider)
    refused = await ada.decide(asked, decision, **body)

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert (await ada.get(f"/v1/confirmations/{asked['id']}"))["status"] == "pending"
    assert paid(ada) == 0


async def test_a_person_answers_in_the_tools_place(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await waiting(ada, provider)
    decided = await ada.decide(asked, "respond", reason="Paid by hand, receipt 12.")
    run = await ada.ended(run["id"])

    assert (decided.json()["status"], decided.json()["decision"]) == ("rejected", "respond")
    assert run["tool_calls"][0]["result"]["answer"] == "Paid by hand, receipt 12."
    assert "receipt 12" in provider.requests[-1].last_text
    assert (run["reply"], paid(ada)) == ("Done.", 0)


async def test_several_are_decided_together_or_not_at_all(ada: Caller, provider: ScriptedProvider) -> None:
    markers = [f"{ada.tenant_id}-{number}" for number in range(3)]
    provider.script(ToolCalls([("send", {"marker": marker}) for marker in markers]), Text("Done."))
    run = await ada.ask("send all")
    while len(pending := await ada.pending(run)) < 3:
        run = await ada.run(run["id"])
    decisions = [
        {"id": one["id"], "decision": decision, "arguments_digest": one["arguments_digest"]}
        for one, decision in zip(pending, ("approve", "reject", "approve"), strict=True)
    ]

    async def decide(several: list[Json]) -> Any:
        return await ada.http.post("/v1/confirmations/decisions", json={"decisions": several})

    wrong = [*decisions[:2], {**decisions[2], "arguments_digest": "0" * 64}]
    unknown = [*decisions, {**decisions[0], "id": "conf_unknown"}]
    assert [(await decide(bad)).status_code for bad in (wrong, unknown, [decisions[0]] * 2, [])] == [412, 404, 422, 422]
    assert {one["status"] for one in (await ada.get("/v1/confirmations", run_id=run["id"]))["data"]} == {"pending"}

    answer = await decide(decisions[::-1])
    run = await ada.ended(run["id"])
    assert [one["status"] for one in answer.json()["data"]] == ["approved", "rejected", "approved"][::-1]
    assert [call["status"] for call in run["tool_calls"]].count("succeeded") == 2
    assert sum(len(effects("send", marker)) for marker in markers) == 2
    assert (await decide(decisions)).status_code == 200, "the same again"


async def test_batches_that_meet_never_wait_for_each_other(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    markers = [f"{ada.tenant_id}-{number}" for number in range(6)]
    provider.script(ToolCalls([("send", {"marker": marker}) for marker in markers]), Text("Done."))
    run = await ada.ask("send all")
    while len(pending := await ada.pending(run)) < 6:
        run = await ada.run(run["id"])
    bob = await stage.caller(ada.tenant_id, "bob")

    async def decide(caller: Caller, several: list[Json], decision: str) -> int:
        body = [{"id": one["id"], "decision": decision, "arguments_digest": one["arguments_digest"]} for one in several]
        answer = await caller.http.post("/v1/confirmations/decisions", json={"decisions": body})
        return answer.status_code

    answers = await asyncio.gather(
        decide(ada, pending, "approve"), decide(bob, pending[::-1], "reject"), decide(bob, pending[2:4], "reject")
    )
    run = await ada.ended(run["id"])
    assert set(answers) <= {200, 409}
    assert 200 in answers
    sent = sum(len(effects("send", marker)) for marker in markers)
    assert sent == [call["status"] for call in run["tool_calls"]].count("succeeded")


@pytest.mark.parametrize(
    ("said", "status"), [("yes", "succeeded"), (" Yes! ", "succeeded"), ("no", "rejected"), ("NO.", "rejected")]
)
async def test_a_word_in_the_chat_decides(ada: Caller, provider: ScriptedProvider, said: str, status: str) -> None:
    run, asked = await waiting(ada, provider)
    answer = await ada.send(said, conversation_id=run["conversation_id"], wait=30, key="k")
    again = await ada.send(said, conversation_id=run["conversation_id"], wait=30, key="k")
    run = await ada.ended(run["id"])
    decided = await ada.get(f"/v1/confirmations/{asked['id']}")

    assert run["tool_calls"][0]["status"] == status
    assert (decided["decided_via"], decided["decided_by"]) == ("chat", "ada")
    assert answer.json() == again.json() == run, "the run that it let go on answers it"
    told = await ada.get(f"/v1/conversations/{run['conversation_id']}/messages")
    assert [message["text"] for message in told["data"]] == ["pay", said, "Done."]
    assert [message["content"] for message in provider.requests[-1].body["messages"] if message["role"] == "user"] == [
        "pay"
    ], "the model is told of the outcome, not of the word"


async def test_a_word_in_the_chat_that_decides_nothing_is_a_message(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """From somebody who may not decide, in somebody else's name, or not quite the word."""
    run, asked = await waiting(ada, provider, agent="guarded")
    conversation = run["conversation_id"]
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    others = [
        await ada.start("yes", agent="guarded", conversation_id=conversation),
        await boss.start("yes", agent="guarded", conversation_id=conversation, sender="somebody"),
        await boss.start("yes, please", agent="guarded", conversation_id=conversation),
    ]

    assert (await ada.get(f"/v1/confirmations/{asked['id']}"))["status"] == "pending"
    assert {(await ada.get(f"/v1/runs/{one}"))["status"] for one in others} == {"queued"}
    assert (await boss.send("yes", agent="guarded", conversation_id=conversation)).json()["status"] == "merged"
    assert (await ada.ended(run["id"]))["tool_calls"][0]["status"] == "succeeded"
    assert [(await ada.ended(one))["status"] for one in others] == ["completed"] * 3


async def test_a_word_in_the_chat_decides_nothing_while_two_calls_wait(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("send", {"marker": f"{ada.tenant_id}-{n}"}) for n in range(2)]), Text("Done."))
    run = await ada.ask("send both")
    while len(pending := await ada.pending(run)) < 2:
        run = await ada.run(run["id"])
    await ada.start("yes", conversation_id=run["conversation_id"])

    assert [one["status"] for one in await ada.pending(run)] == ["pending"] * 2
    for one in pending:
        await ada.decide(one, "reject")
    await ada.ended(run["id"])


async def test_an_author_who_wants_every_call_confirmed_is_heeded(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("refund", {"marker": ada.tenant_id})]), Text("Done."))
    run = await ada.ask("refund", agent="guarded")
    asked = await ada.only_pending(run)

    assert asked["rule"] == "refund declares: confirm always"
    assert effects("refund", ada.tenant_id) == []


async def test_nobody_decides_and_the_run_is_cancelled(ada: Caller, provider: ScriptedProvider) -> None:
    calls: list[tuple[str, Json | str]] = [
        ("pay", {"marker": ada.tenant_id, "amount": 1}),
        ("send", {"marker": ada.tenant_id}),
    ]
    provider.script(ToolCalls(calls), Text("never asked for"))
    run = await ada.ended(await ada.start("pay and send", agent="stopping"))

    assert (run["status"], run["error"]) == ("cancelled", "not_confirmed")
    assert "nobody confirmed in time" in run["reply"]
    assert [call["status"] for call in run["tool_calls"]] == ["expired", "withdrawn"]
    assert await ada.pending(run) == []
    assert provider.calls == 1
