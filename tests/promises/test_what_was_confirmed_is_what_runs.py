"""Promise 3: a decision is bound to one call, its exact arguments, a deadline and a person; and is used once."""

import json

import asyncpg
from sqlalchemy import make_url

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.agents.tools import effects
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.processes import KillableStage
from tests.harness.stage import Stage


async def tamper(stage: Stage, statement: str, *values: object) -> None:
    """Change a row behind the application's back, as its owner."""
    connection = await asyncpg.connect(make_url(stage.owner_url).set(drivername="postgresql").render_as_string())
    try:
        assert await connection.execute(statement, *values) == "UPDATE 1"
    finally:
        await connection.close()


async def waiting(caller: Caller, provider: ScriptedProvider, **options: str) -> tuple[Json, Json]:
    """A run that waits for a person to confirm a payment of 1."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 1})]))
    run = await caller.ask("pay", **options)
    return run, await caller.only_pending(run)


#: Where somebody of a role must decide.
KEY = "the key of who decided"

TAMPERED = {
    "the arguments of the call": (
        "UPDATE tool_calls SET arguments = $2 WHERE tool_call_id = $1",
        json.dumps({"marker": "m", "amount": 1_000_000}),
    ),
    "the digest of the call": ("UPDATE tool_calls SET arguments_digest = $2 WHERE tool_call_id = $1", "0" * 64),
    "the tool": ("UPDATE tool_calls SET tool = $2 WHERE tool_call_id = $1", "send"),
    "the digest of the decision": (
        "UPDATE confirmations SET arguments_digest = $2 WHERE tool_call_id = $1",
        "0" * 64,
    ),
    "the deadline": ("UPDATE confirmations SET deadline = created_at WHERE tool_call_id = $1 AND $2 = ''", ""),
    KEY: (
        "UPDATE api_keys k SET revoked_at = now() FROM confirmations c"
        " WHERE c.tool_call_id = $1 AND k.tenant_id = c.tenant_id AND k.person = c.decided_by AND $2 = ''",
        "",
    ),
    "the use": ("UPDATE confirmations SET used_at = now() WHERE tool_call_id = $1 AND $2 = ''", ""),
}


async def test_what_changed_after_it_was_approved_does_not_run(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    """The decisions are stored while no worker is up; something of each is changed; then the worker comes back."""
    await killable.worker.start()
    callers = {what: await killable.stage.caller(new_tenant()) for what in (*TAMPERED, "nothing")}
    agents = {what: "guarded" if what == KEY else "support" for what in callers}
    waits = {what: await waiting(caller, provider, agent=agents[what]) for what, caller in callers.items()}
    deciders = {**callers, KEY: await killable.stage.caller(callers[KEY].tenant_id, "bob", ["billing"])}
    killable.worker.kill()
    for what, (_, confirmation) in waits.items():
        assert (await deciders[what].decide(confirmation)).status_code == 200
    for what, (statement, value) in TAMPERED.items():
        await tamper(killable.stage, statement, waits[what][1]["tool_call_id"], value)

    await killable.worker.start()
    ended = {what: await caller.ended(waits[what][0]["id"]) for what, caller in callers.items()}

    statuses = {what: run["tool_calls"][0]["status"] for what, run in ended.items()}
    assert statuses == {**dict.fromkeys(TAMPERED, "denied"), "nothing": "succeeded"}
    paid = {what: len(effects("pay", caller.tenant_id)) for what, caller in callers.items()}
    assert paid == {**dict.fromkeys(TAMPERED, 0), "nothing": 1}
    assert {run["tool_calls"][0]["error"] for run in ended.values()} == {
        None,
        "What would run is not what was approved. It was not run.",
    }


async def test_a_workflow_that_starts_anew_uses_no_approval_twice(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """An operator resets the workflow to its beginning: every step finds what was stored, and nothing runs again."""
    run, confirmation = await waiting(ada, provider)
    await ada.decide(confirmation)
    run = await ada.ended(run["id"])
    calls = provider.calls
    await stage.reset_to_the_beginning(f"{ada.tenant_id}:support:{run['message_id']}")

    assert len(effects("pay", ada.tenant_id)) == 1
    assert provider.calls == calls
    assert await ada.get(f"/v1/runs/{run['id']}") == run
