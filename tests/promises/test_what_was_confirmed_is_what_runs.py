"""Promise 3: a decision is bound to one call, its exact arguments, a deadline and a person; and is used once."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy import make_url

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.agents.tools import effects
from tests.conftest import new_tenant
from tests.harness.audit import wrong
from tests.harness.caller import Caller, Json
from tests.harness.identity_provider import AUDIENCE, new_identity_provider
from tests.harness.processes import KillableStage
from tests.harness.stage import Stage, serving_api


async def tamper(stage: Stage, statement: str, *values: object) -> None:
    """Change a row behind the application's back, as its owner."""
    connection = await asyncpg.connect(make_url(stage.owner_url).set(drivername="postgresql").render_as_string())
    try:
        assert (await connection.execute(statement, *values)).endswith(" 1"), statement
    finally:
        await connection.close()


async def waiting(caller: Caller, provider: ScriptedProvider, **options: str) -> tuple[Json, Json]:
    """A run that waits for a person to confirm a payment of 1."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 1})]))
    run = await caller.ask("pay", **options)
    return run, await caller.only_pending(run)


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
    "the use": ("UPDATE confirmations SET used_at = now() WHERE tool_call_id = $1 AND $2 = ''", ""),
}


@dataclass(frozen=True)
class Right:
    """Who decides, what becomes of their rights before the call is dispatched, and what becomes of the call."""

    status: str
    changes: tuple[str, ...] = ()
    has_token: bool = False
    agent: str = "guarded"


_FIRST_OF_BOB = "tenant_id = $1 AND key_id = (SELECT min(key_id) FROM api_keys WHERE person = 'bob' AND tenant_id = $1)"
_REVOKED = f"UPDATE api_keys SET revoked_at = now() WHERE {_FIRST_OF_BOB}"
_HIS_OTHER = "UPDATE api_keys SET person = 'bob', expires_at = {} WHERE tenant_id = $1 AND person = 'robert'"
_LINKED = "INSERT INTO identities (tenant_id, kind, subject, principal) VALUES ($1, 'oidc', '4711', 'bob')"

#: Bob decides with his first key, or somebody with a token. `guarded` wants the role billing, and four eyes.
RIGHTS = {
    "nothing happens to his key": Right("succeeded"),
    "his key is revoked": Right("denied", (_REVOKED,)),
    "it is revoked, where no role is asked for by name": Right("denied", (_REVOKED,), agent="support"),
    "it is revoked, and he has another": Right("succeeded", (_REVOKED, _HIS_OTHER.format("NULL"))),
    "it is revoked, and he has another that had expired before": Right(
        "denied", (_REVOKED, _HIS_OTHER.format("created_at"))
    ),
    "it is revoked, and a token is his too": Right("denied", (_REVOKED, _LINKED)),
    "it expires as it was made to": Right(
        "succeeded", (f"UPDATE api_keys SET expires_at = clock_timestamp() WHERE {_FIRST_OF_BOB}",)
    ),
    "it was a token": Right("succeeded", has_token=True),
    "it was a token, which is linked to him": Right("succeeded", (_LINKED,), has_token=True),
    "it was a token, and not of this role": Right(
        "denied", ("UPDATE confirmations SET approvers = '{treasury}' WHERE tenant_id = $1",), has_token=True
    ),
}


@asynccontextmanager
async def deciding_with_tokens(stage: Stage) -> AsyncIterator[Callable[[str], Caller]]:
    """An API that takes tokens, and callers with one, by tenant."""
    async with (
        new_identity_provider().running() as issuer,
        serving_api(stage.database_url, stage.task_queue, oidc_issuer=issuer.issuer, oidc_audience=AUDIENCE) as url,
    ):

        def with_token(tenant_id: str) -> Caller:
            token = issuer.token(tenant=tenant_id, roles=["approver", "billing", "client", "sales"])
            stage.callers.append(Caller(url, token, tenant_id, "oidc:4711"))
            return stage.callers[-1]

        yield with_token


async def bob_of(stage: Stage, tenant_id: str, right: Right) -> Caller:
    """Bob, who may decide; Robert too, where his key is to become Bob's; and a Bob of another tenant, who may there."""
    bob = await stage.caller(tenant_id, "bob", ["billing"])
    if any("robert" in change for change in right.changes):
        await stage.caller(tenant_id, "robert", ["billing"])
    if right.changes == (_REVOKED,):
        await stage.caller(f"{tenant_id}-other", "bob", ["billing"])
    return bob


async def test_what_changed_after_it_was_approved_does_not_run(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    """The decisions are stored while no worker is up; something of each is changed; then the worker comes back."""
    stage = killable.stage
    await killable.worker.start()
    callers = {what: await stage.caller(new_tenant()) for what in (*TAMPERED, *RIGHTS, "nothing")}
    agents = {what: RIGHTS[what].agent if what in RIGHTS else "support" for what in callers}
    waits = {what: await waiting(caller, provider, agent=agents[what]) for what, caller in callers.items()}
    killable.worker.kill()
    async with deciding_with_tokens(stage) as with_token:
        deciders = dict(callers)
        for what, right in RIGHTS.items():
            tenant_id = callers[what].tenant_id
            deciders[what] = with_token(tenant_id) if right.has_token else await bob_of(stage, tenant_id, right)
        for what, (_, confirmation) in waits.items():
            decided = await deciders[what].decide(confirmation)
            assert decided.status_code == 200, (what, decided.text)
    for what, (statement, value) in TAMPERED.items():
        await tamper(stage, statement, waits[what][1]["tool_call_id"], value)
    for what, right in RIGHTS.items():
        for statement in right.changes:
            await tamper(stage, statement, callers[what].tenant_id)

    await killable.worker.start()
    ended = {what: await caller.ended(waits[what][0]["id"]) for what, caller in callers.items()}

    statuses = {what: run["tool_calls"][0]["status"] for what, run in ended.items()}
    expected = {what: right.status for what, right in RIGHTS.items()}
    assert statuses == {**dict.fromkeys(TAMPERED, "denied"), **expected, "nothing": "succeeded"}
    paid = {what: len(effects("pay", caller.tenant_id)) for what, caller in callers.items()}
    assert paid == {what: int(status == "succeeded") for what, status in statuses.items()}
    assert {run["tool_calls"][0]["error"] for run in ended.values()} == {
        None,
        "What would run is not what was approved. It was not run.",
    }
    await _the_roles_of_a_token_are_on_record(stage, callers["it was a token"].tenant_id)


async def _the_roles_of_a_token_are_on_record(stage: Stage, tenant_id: str) -> None:
    """Those that counted, of all that it had; and whoever changes them is found out."""
    query = "SELECT confirmation_id, decided_roles FROM confirmations WHERE tenant_id = $1"
    ((confirmation_id, roles),) = await stage.rows(query, tenant_id)
    assert roles == ["approver", "billing"]
    assert await wrong(stage.database, tenant_id) == []
    await tamper(stage, "UPDATE confirmations SET decided_roles = '{admin}' WHERE tenant_id = $1", tenant_id)
    assert [confirmation_id in found for found in await wrong(stage.database, tenant_id)] == [True]


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
