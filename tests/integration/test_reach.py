"""What a client sees and does: their own, and of a colleague's things as much as of those that don't exist."""

from holdfast.domain.permissions import Role
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage


async def waiting(caller: Caller, approver: Caller, provider: ScriptedProvider) -> tuple[Json, Json]:
    """A run that waits for a person, and what it waits for."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]), Text("Done."))
    run = await caller.ask("pay")
    return run, await approver.only_pending(run)


async def client(stage: Stage, tenant: str, person: str, *more: Role) -> Caller:
    return await stage.caller(tenant, person, only=[Role.CLIENT, *more])


async def test_a_client_finds_nothing_of_a_colleague(stage: Stage, provider: ScriptedProvider) -> None:
    tenant = new_tenant()
    ann, ben = await client(stage, tenant, "ann"), await client(stage, tenant, "ben")
    run, asked = await waiting(ann, ann, provider)
    paths = [
        f"/v1/runs/{run['id']}",
        f"/v1/runs/{run['id']}?wait=1",
        f"/v1/conversations/{run['conversation_id']}/messages",
        f"/v1/confirmations/{asked['id']}",
        f"/v1/tool-calls/{asked['tool_call_id']}",
    ]
    ids = [run["id"], run["conversation_id"], asked["id"], asked["tool_call_id"]]

    for path in paths:
        mine, theirs = await ann.http.get(path), await ben.http.get(path)
        assert (path, mine.status_code, theirs.status_code) == (path, 200, 404)
        unknown = path
        for one in ids:
            unknown = unknown.replace(one, f"{one[:-4]}ZZZZ")
        not_there = (await ben.http.get(unknown)).text
        for one in ids:
            not_there = not_there.replace(f"{one[:-4]}ZZZZ", one)
        assert theirs.text == not_there
    assert (await ben.http.post(f"/v1/runs/{run['id']}/cancel")).status_code == 404
    assert (await ben.send("and me", conversation_id=run["conversation_id"])).status_code == 404
    for path in ("/v1/runs", "/v1/confirmations", "/v1/tool-calls"):
        assert ((await ben.get(path))["data"], len((await ann.get(path))["data"])) == ([], 1)
    assert (await ann.get(f"/v1/runs/{run['id']}"))["status"] == "requires_confirmation"


async def test_a_client_may_stop_what_they_began(stage: Stage, provider: ScriptedProvider) -> None:
    ann = await client(stage, new_tenant(), "ann")
    run, _ = await waiting(ann, ann, provider)
    assert (await ann.http.post(f"/v1/runs/{run['id']}/cancel")).status_code == 200
    assert (await ann.ended(run["id"]))["status"] == "cancelled"


async def test_a_client_with_another_key_of_theirs_finds_what_they_began(
    stage: Stage, provider: ScriptedProvider
) -> None:
    tenant = new_tenant()
    ann = await client(stage, tenant, "ann")
    run, asked = await waiting(ann, ann, provider)
    at_home = await client(stage, tenant, "ann")
    assert (await at_home.get(f"/v1/confirmations/{asked['id']}"))["run_id"] == run["id"]


async def test_a_client_who_is_no_approver_decides_nothing(stage: Stage, provider: ScriptedProvider) -> None:
    """Neither by the route nor by a word in the chat, which is then a message."""
    ann = await client(stage, new_tenant(), "ann")
    run, asked = await waiting(ann, ann, provider)
    provider.script(Text("Yes what?"))

    assert (await ann.decide(asked)).status_code == 403
    said = await ann.send("yes", conversation_id=run["conversation_id"])
    assert said.json()["status"] == "queued"
    assert (await ann.get(f"/v1/confirmations/{asked['id']}"))["status"] == "pending"
    assert effects("pay", ann.tenant_id) == []


async def test_a_client_who_is_an_approver_decides_their_own(stage: Stage, provider: ScriptedProvider) -> None:
    ann = await client(stage, new_tenant(), "ann", Role.APPROVER)
    run, asked = await waiting(ann, ann, provider)
    assert (await ann.decide(asked)).status_code == 200
    assert (await ann.ended(run["id"]))["status"] == "completed"


async def test_an_approver_sees_the_runs_that_a_person_is_asked_about(stage: Stage, provider: ScriptedProvider) -> None:
    tenant = new_tenant()
    ann, bob = await client(stage, tenant, "ann"), await stage.caller(tenant, "bob", only=[Role.APPROVER])
    silent = await ann.ask("hello")
    run, asked = await waiting(ann, bob, provider)

    assert [one["id"] for one in (await bob.get("/v1/runs"))["data"]] == [run["id"]]
    assert (await bob.http.get(f"/v1/runs/{silent['id']}")).status_code == 404
    transcript = await bob.http.get(f"/v1/conversations/{run['conversation_id']}/messages")
    assert transcript.status_code == 403
    assert (await bob.decide(asked)).status_code == 200
    assert (await ann.ended(run["id"]))["reply"] == "Done."


async def test_an_operator_sees_everybodys_and_stops_it(stage: Stage, provider: ScriptedProvider) -> None:
    tenant = new_tenant()
    ann, ops = await client(stage, tenant, "ann"), await stage.caller(tenant, "ops", only=[Role.OPERATOR])
    run, asked = await waiting(ann, ops, provider)

    assert (await ops.decide(asked)).status_code == 403
    assert len((await ops.get(f"/v1/conversations/{run['conversation_id']}/messages"))["data"]) == 1
    assert (await ops.http.post(f"/v1/runs/{run['id']}/cancel")).status_code == 200
    assert (await ann.ended(run["id"]))["cancelled_by"] == "ops"


async def test_an_idempotency_key_tells_a_colleague_nothing(stage: Stage) -> None:
    tenant = new_tenant()
    ann, ben = await client(stage, tenant, "ann"), await client(stage, tenant, "ben")
    run_id = await ann.start("hello", key="k")
    guessed = await ben.send("hello", key="k", wait=1)

    assert guessed.status_code == 422
    assert run_id not in guessed.text
    assert (await ann.send("hello", key="k")).json()["run_id"] == run_id
    await ann.ended(run_id)
