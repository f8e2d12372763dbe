"""A call whose outcome is unknown: a person says what became of it, or nobody does, and it is never guessed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage


async def unknown(caller: Caller, provider: ScriptedProvider, **options: Any) -> tuple[Json, Json]:
    """A run whose tool was cut after its effect, and what a person is asked about it."""
    marker = f"/nowhere/{caller.tenant_id}"
    provider.script(ToolCalls([("hang_sending", {"marker": marker})]), Text("Done."))
    run = await caller.ask("send", **options)
    return run, await caller.only_pending(run)


async def resolve(caller: Caller, asked: Json, outcome: str, **body: Any) -> httpx.Response:
    body = {"outcome": outcome, "evidence": "I looked.", **body}
    return await caller.http.post(f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)


def ran(caller: Caller) -> int:
    return len(effects("hang_sending", f"/nowhere/{caller.tenant_id}"))


async def test_it_is_among_what_waits_for_a_person(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)

    assert (asked["kind"], asked["on_deadline"], asked["tool"]) == ("outcome", "unknown", "hang_sending")
    assert (run["status"], run["tool_calls"][0]["status"]) == ("requires_confirmation", "ambiguous")
    (listed,) = (await ada.get("/v1/tool-calls", status="ambiguous"))["data"]
    assert listed == await ada.get(f"/v1/tool-calls/{asked['tool_call_id']}") == run["tool_calls"][0]


async def test_it_happened_and_the_model_sees_what_the_person_found(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)
    answer = await resolve(ada, asked, "committed", result={"receipt": 7})
    again = await resolve(ada, asked, "committed", result={"receipt": 7})
    run = await ada.ended(run["id"])

    assert (answer.status_code, again.status_code) == (200, 200)
    assert answer.json() == again.json() == run["tool_calls"][0]
    assert (run["tool_calls"][0]["status"], run["tool_calls"][0]["result"]) == ("succeeded", {"receipt": 7})
    assert provider.requests[-1].last_text == '{"receipt": 7}'
    assert (run["reply"], ran(ada)) == ("Done.", 1)
    settled = await ada.get(f"/v1/confirmations/{asked['id']}")
    assert (settled["status"], settled["decision"], settled["reason"]) == ("resolved", "committed", "I looked.")


async def test_it_did_not_happen_and_is_not_to(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)
    assert (await resolve(ada, asked, "failed")).status_code == 200
    run = await ada.ended(run["id"])

    assert run["tool_calls"][0]["status"] == "failed"
    assert "did not take effect" in provider.requests[-1].last_text
    assert ran(ada) == 1


async def test_it_is_run_again_once_and_may_be_unknown_again(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)
    assert (await resolve(ada, asked, "run_again")).status_code == 200
    again = await _next_question(ada, run, asked)

    assert ran(ada) == 2
    assert (await ada.get(f"/v1/tool-calls/{asked['tool_call_id']}"))["attempts"] == 2
    assert (await resolve(ada, again, "committed")).status_code == 200
    run = await ada.ended(run["id"])
    assert (run["tool_calls"][0]["status"], ran(ada)) == ("succeeded", 2)


async def test_nobody_says_and_the_model_is_told_that_it_is_unknown(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider, agent="hanging_hastily")
    run = await ada.ended(run["id"])

    assert run["tool_calls"][0]["status"] == "ambiguous"
    assert "outcome is unknown" in provider.requests[-1].last_text
    assert (await ada.get(f"/v1/confirmations/{asked['id']}"))["status"] == "expired"
    # It can still be said what happened, for the record and for later turns; but nobody runs it again.
    refused = await resolve(ada, asked, "run_again")
    assert (refused.status_code, "can't be run again" in refused.json()["detail"]) == (409, True)
    assert (await resolve(ada, asked, "committed")).status_code == 200
    assert (await ada.get(f"/v1/runs/{run['id']}"))["tool_calls"][0]["status"] == "succeeded"
    assert ran(ada) == 1


@pytest.mark.parametrize("_round", range(3))
async def test_of_racing_resolutions_one_wins(
    ada: Caller, stage: Stage, provider: ScriptedProvider, _round: int
) -> None:
    run, asked = await unknown(ada, provider)
    bob = await stage.caller(ada.tenant_id, person="bob")
    answers = await asyncio.gather(
        *(resolve(person, asked, outcome) for person in (ada, bob) for outcome in ("committed", "failed", "run_again"))
    )
    assert [answer.status_code for answer in answers].count(200) == 1
    assert {answer.status_code for answer in answers} == {200, 409}
    if ran_again := (await ada.get(f"/v1/confirmations/{asked['id']}"))["decision"] == "run_again":
        await resolve(ada, await _next_question(ada, run, asked), "failed")
    await ada.ended(run["id"])
    assert ran(ada) == (2 if ran_again else 1)


async def test_what_makes_no_sense_is_refused(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)
    mallory = await stage.caller(f"{ada.tenant_id}-other")

    assert (await resolve(ada, asked, "perhaps")).status_code == 422
    assert (await resolve(ada, asked, "committed", evidence="")).status_code == 422
    assert (await resolve(ada, asked, "committed", result="\x00")).status_code == 422
    assert (await resolve(mallory, asked, "committed")).status_code == 404
    assert (await ada.decide(asked)).status_code == 409, "an approval says nothing of what became of it"
    await resolve(ada, asked, "failed")
    await ada.ended(run["id"])
    assert (await resolve(ada, asked, "committed")).status_code == 409


async def test_what_cant_be_run_again_is_unknown_as_before(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Its arguments are changed after a person had it run again: it does not run, and nobody says that it did not."""
    run, asked = await unknown(ada, provider)
    changed = "UPDATE tool_calls SET arguments = $2 WHERE tool_call_id = $1 RETURNING 1"
    await stage.rows(changed, asked["tool_call_id"], json.dumps({"marker": "another"}))
    assert (await resolve(ada, asked, "run_again")).status_code == 200
    run = await ada.ended(run["id"])

    assert run["tool_calls"][0]["status"] == "ambiguous"
    assert "outcome is unknown" in provider.requests[-1].last_text
    assert (ran(ada), effects("hang_sending", "another")) == (1, [])


async def test_a_call_that_was_cut_off_is_settled_by_who_would_have_been_asked(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """Nobody is asked of a cancelled run's call; its agent's policy says all the same who may settle it."""
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]))
    sent = (await ada.send("send", agent="guarded")).json()
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    await ada.http.post(f"/v1/runs/{sent['run_id']}/cancel")
    run = await ada.ended(sent["run_id"])
    release.touch()
    left = {"tool_call_id": run["tool_calls"][0]["id"]}

    assert run["tool_calls"][0]["status"] == "ambiguous"
    assert (await resolve(ada, left, "committed")).status_code == 403
    assert (await resolve(boss, left, "run_again")).status_code == 409
    assert (await resolve(boss, left, "committed")).status_code == 200


async def test_another_result_is_another_word(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await unknown(ada, provider)
    assert (await resolve(ada, asked, "committed", result={"receipt": 7})).status_code == 200
    assert (await resolve(ada, asked, "committed", result={"receipt": 8})).status_code == 409
    await ada.ended(run["id"])


async def _next_question(caller: Caller, run: Json, before: Json) -> Json:
    while True:
        run = await caller.run(run["id"])
        found = [one for one in await caller.pending(run) if one["id"] != before["id"]]
        if found:
            return found[0]
