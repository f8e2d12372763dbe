"""The kill switch: what it covers stops, whatever state it is in; what it does not cover is untouched."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.domain.switches import EVERYBODY, Scope
from holdfast.services.switches import Stopper, Switches
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Hang, Reply, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage

WHY = "it writes nonsense"


def obedient(request: RecordedRequest) -> Reply:
    """Does what the message says: hangs, or asks for the tool it names, for the marker it names."""
    if request.last_role == "tool":
        return Text("Done.")
    what, _, marker = request.last_text.partition(" ")
    match what:
        case "hang":
            return Hang()
        case "pay":
            return ToolCalls([("pay", {"marker": marker, "amount": 1})])
        case "send_slowly" | "send":
            return ToolCalls([(what, {"marker": marker})])
    return Text("Hello.")


@dataclass(frozen=True)
class Busy:
    """A tenant with ten runs: two at a model that hangs, two in a tool, three that wait for a person, three behind."""

    caller: Caller
    marker: str
    runs: list[str]

    async def statuses(self) -> Counter[str]:
        listed = (await self.caller.get("/v1/runs", limit=100))["data"]
        return Counter(run["status"] for run in listed if run["id"] in self.runs)

    async def are_in_every_state(self) -> bool:
        at_work = len(effects("send_slowly", self.marker)) == 2
        return at_work and await self.statuses() == {"running": 4, "requires_confirmation": 3, "queued": 3}

    async def are_cancelled(self) -> bool:
        return await self.statuses() == {"cancelled": 10}


async def busy(caller: Caller, folder: Path) -> Busy:
    marker = str(folder / caller.tenant_id)
    runs = [await caller.start(f"{what} {marker}") for what in ("hang", "hang", "send_slowly", "send_slowly")]
    for _ in range(3):
        first = (await caller.send(f"pay {marker}")).json()
        second = (await caller.send("hello", conversation_id=first["conversation_id"])).json()
        runs += [first["run_id"], second["run_id"]]
    found = Busy(caller, marker, runs)
    await until(found.are_in_every_state)
    return found


async def throw(caller: Caller, scope: str = "tenant") -> Json:
    response = await caller.http.put(f"/v1/switches/{scope}", json={"reason": WHY})
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


async def lift(caller: Caller, scope: str = "tenant") -> None:
    assert (await caller.http.delete(f"/v1/switches/{scope}")).status_code == 200


async def test_a_tenants_runs_stop_in_whatever_state_they_are_and_another_tenants_go_on(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.default = obedient
    bob = await stage.caller(f"{ada.tenant_id}-b", "bob")
    hers, his = await busy(ada, tmp_path), await busy(bob, tmp_path)
    assert (await throw(ada))["scope"] == "tenant"

    await until(hers.are_cancelled)
    assert await his.are_in_every_state()
    assert (await ada.get("/v1/confirmations", status="pending"))["data"] == []
    withdrawn = (await ada.get("/v1/confirmations", status="withdrawn"))["data"]
    assert len(withdrawn) == 3
    assert [(await ada.decide(one)).status_code for one in withdrawn] == [409] * 3

    for asked in (await bob.get("/v1/confirmations", status="pending"))["data"]:
        assert (await bob.decide(asked)).status_code == 200
    Path(his.marker).touch()
    provider.default = lambda _: Text("Done.")
    provider.release()
    for run in his.runs:
        assert (await bob.ended(run))["status"] == "completed"
    assert [len(effects("pay", one.marker)) for one in (hers, his)] == [0, 3]
    assert [len(effects("send_slowly", one.marker)) for one in (hers, his)] == [2, 2]
    Path(hers.marker).touch()


async def test_each_end_is_on_record_and_says_why(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.default = obedient
    hers = await busy(ada, tmp_path)
    await throw(ada)
    await until(hers.are_cancelled)
    await lift(ada)
    kept = await stage.rows(
        "SELECT * FROM audit WHERE tenant_id = $1 AND kind IN ('run', 'switch') ORDER BY audit_id", ada.tenant_id
    )
    Path(hers.marker).touch()

    told = [
        (row["outcome"], row["subject_id"], row["person"], row["detail"]) for row in kept if row["kind"] == "switch"
    ]
    assert told == [("stopped", "tenant", "ada", WHY), ("lifted", "tenant", "ada", WHY)]
    for run in hers.runs:
        of_run = [(row["outcome"], row["person"], row["detail"]) for row in kept if row["run_id"] == run]
        assert of_run[0] == ("cancel requested", "ada", f"stopped: {WHY}")
        assert [outcome for outcome, _, _ in of_run[1:]] == ["cancelled"]


async def test_new_messages_are_refused_and_nothing_is_stored_until_it_is_lifted(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    await ada.ask("hello")
    await throw(ada)
    refused = [await ada.send(f"later, {ada.tenant_id}", key="later") for _ in range(2)]
    question = {"role": "user", "content": f"now, {ada.tenant_id}"}
    completion = await ada.http.post("/complete", json={"alias": "fast", "messages": [question]})

    problems = [one.json() for one in (*refused, completion)]
    assert {(one["status"], one["title"], one["detail"]) for one in problems} == {
        (503, "Stopped", f"Everything here is stopped: {WHY}")
    }
    assert refused[0].headers["retry-after"] == "60"
    assert len(await stage.rows("SELECT FROM messages WHERE tenant_id = $1 AND role = 'user'", ada.tenant_id)) == 1
    assert ada.tenant_id not in str([request.body for request in provider.requests])

    await lift(ada)
    assert (await ada.send(f"later, {ada.tenant_id}", key="later", wait=30)).json()["status"] == "completed"
    assert (await ada.http.delete("/v1/switches/tenant")).status_code == 404


async def test_an_agents_switch_stops_that_agent_alone(ada: Caller, provider: ScriptedProvider, tmp_path: Path) -> None:
    provider.default = obedient
    stopped = await ada.start(f"pay {tmp_path}")
    spared = await ada.start("hang", agent="impatient")
    await ada.run(stopped)
    await throw(ada, "agent:support")

    assert (await ada.ended(stopped))["status"] == "cancelled"
    refused = (await ada.send("hello")).json()
    assert (refused["title"], refused["detail"]) == ("Stopped", f"The agent 'support' is stopped: {WHY}")
    assert (await ada.ended(spared))["status"] == "completed"
    assert (await ada.send("hello", agent="two_steps", wait=30)).json()["status"] == "completed"


async def test_a_switch_that_makes_no_sense_is_refused(ada: Caller) -> None:
    async def put(scope: str, reason: str = WHY) -> int:
        return (await ada.http.put(f"/v1/switches/{scope}", json={"reason": reason})).status_code

    assert [await put("agent:nobody"), await put("all"), await put("*"), await put("tenant", "")] == [
        404,
        422,
        422,
        422,
    ]
    assert await put("tenant", " ") == 422
    assert (await ada.get("/v1/switches"))["data"] == []


async def test_nothing_begins_once_it_is_thrown_though_no_run_has_heard_of_it(
    ada: Caller, stage: Stage, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals may be lost, and Temporal away: the row alone keeps a tool and a model call from beginning."""

    async def hears_nothing(_: Stopper) -> int:
        return 0

    monkeypatch.setattr(Stopper, "stop_all", hears_nothing)
    provider.script(Hang())
    run = await ada.start("send", agent="trusting")
    await until(lambda: provider.calls == 1)
    await throw(ada)
    provider.script(ToolCalls([("send", {"marker": ada.tenant_id})]))
    # What hung fails, and the fallback answers, all in the one model call that was on its way.
    provider.release()

    async def is_denied() -> bool:
        calls = (await ada.get(f"/v1/runs/{run}"))["tool_calls"]
        return bool(calls) and calls[0]["status"] == "denied"

    await until(is_denied)
    asked = provider.calls
    monkeypatch.undo()
    ended = await ada.ended(run)

    assert (ended["status"], ended["tool_calls"][0]["status"]) == ("cancelled", "denied")
    assert provider.calls == asked, "the model was not asked again"
    assert effects("send", ada.tenant_id) == []


async def test_the_switch_for_everything_is_the_operators(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    environment = {
        **os.environ,
        "HOLDFAST_DATABASE_URL": stage.database_url,
        "HOLDFAST_DATABASE_OWNER_URL": stage.owner_url,
        "HOLDFAST_URL": stage.url,
        "HOLDFAST_API_KEY": ada.key,
        "LOGNAME": "olga",
    }

    async def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "holdfast"), *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )

    provider.default = obedient
    bob = await stage.caller(f"{ada.tenant_id}-b", "bob")
    runs = [await ada.start("hang"), await bob.start("hang")]
    await until(lambda: provider.in_flight == 2)
    thrown = await holdfast("stop", "--all", "--reason", WHY)
    try:
        assert (thrown.returncode, thrown.stderr) == (0, "")
        assert (await ada.ended(runs[0]))["status"] == (await bob.ended(runs[1]))["status"] == "cancelled"
        assert (await ada.ended(runs[0]))["cancelled_by"] == "operator olga"
        assert [(await caller.send("hello")).status_code for caller in (ada, bob)] == [503, 503]
        assert (await ada.get("/v1/switches"))["data"][0]["scope"] == "all"
        assert "it writes nonsense" in (await holdfast("switches")).stdout
        with pytest.raises(Exception, match="row-level security"):
            await Switches(stage.database).throw(Scope(EVERYBODY), "mine", "mallory")
        async with stage.database.tenant(EVERYBODY) as connection:
            assert (await connection.exec_driver_sql("DELETE FROM switches")).rowcount == 0
    finally:
        lifted = await holdfast("lift", "--all")
    assert lifted.returncode == 0, lifted.stderr
    assert lifted.stdout == "lifted: all, which operator olga had thrown: it writes nonsense\n"
    assert [
        row["outcome"] for row in await stage.rows("SELECT * FROM audit WHERE subject_id = 'all' ORDER BY audit_id")
    ] == [
        "stopped",
        "lifted",
    ]
    provider.reset()
    assert (await ada.send("hello", wait=30)).json()["status"] == "completed"


async def test_the_operator_stops_one_tenant_from_the_command_line(ada: Caller, stage: Stage) -> None:
    environment = {**os.environ, "HOLDFAST_DATABASE_URL": stage.database_url}

    async def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "holdfast"), *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )

    unknown = await holdfast("stop", "--tenant", "nobody", "--reason", WHY)
    thrown = await holdfast("stop", "--tenant", ada.tenant_id, "--agent", "support", "--reason", WHY)
    senseless = await holdfast("stop", "--tenant", ada.tenant_id, "--all", "--reason", WHY)

    assert (unknown.returncode, unknown.stderr) == (1, "There is no tenant 'nobody'.\n")
    assert (senseless.returncode, senseless.stderr.count("\n")) == (1, 1)
    assert (thrown.returncode, thrown.stderr) == (0, "")
    assert (await ada.send("hello")).status_code == 503
    assert (await ada.send("hello", agent="two_steps")).status_code == 202
