"""A budget holds, however many calls run side by side, and whatever dies in the middle of one."""

import asyncio
from decimal import Decimal

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang, Slow, Text
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.processes import KillableStage
from tests.harness.stage import Stage

SETTLED = "SELECT coalesce(sum(cost_usd), 0) AS usd FROM audit WHERE tenant_id = $1 AND kind = 'model_call'"
HELD = "SELECT reservation_id, amount_usd FROM reservations WHERE tenant_id = $1"

#: As long as `priced` may write: what it costs is all that was reserved, but for the prompt.
LONG = Text("word " * 80)


async def set_limit(caller: Caller, limit: Decimal) -> None:
    response = await caller.http.put("/v1/budget", json={"limit_usd": str(limit), "period": "total"})
    assert response.status_code == 200, response.text


async def worst_case(ada: Caller, provider: ScriptedProvider) -> Decimal:
    """What one run reserves for its call."""
    await set_limit(ada, Decimal(1))
    provider.script(Hang())
    run_id = await ada.start("message 0", agent="charged")
    await until(lambda: provider.calls == 1)
    reserved = (await ada.get("/v1/budget"))["reserved_usd"]
    await ada.http.post(f"/v1/runs/{run_id}/cancel")
    await ada.ended(run_id)
    return Decimal(reserved)


async def test_twenty_runs_at_once_where_five_fit(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    limit = 5 * await worst_case(ada, provider)
    await set_limit(ada, limit)
    provider.default = lambda _: Slow(LONG, 0.5)
    started = [await ada.start(f"message {number % 10}", agent="charged") for number in range(20)]
    runs = await asyncio.gather(*(ada.ended(run_id) for run_id in started))
    (settled,) = await stage.rows(SETTLED, ada.tenant_id)
    budget = await ada.get("/v1/budget")

    answered = [Decimal(run["usage"]["cost_usd"]) for run in runs if not run["degraded"]]
    assert 5 <= len(answered) < 20
    assert 20 * min(answered) > limit, "together they would have cost more"
    assert Decimal(budget["spent_usd"]) == settled["usd"] == sum(answered) <= limit
    assert budget["reserved_usd"] == "0"
    assert {run["error"] for run in runs} == {None, "out_of_budget"}


async def test_twenty_calls_of_the_pool_at_once(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    limit = Decimal("0.0135")
    await set_limit(ada, limit)
    provider.default = lambda _: Slow(LONG, 0.5)
    body = {"alias": "priced", "messages": [{"role": "user", "content": "hello"}]}
    answers = await asyncio.gather(*(ada.http.post("/complete", json=body) for _ in range(20)))
    (settled,) = await stage.rows(SETTLED, ada.tenant_id)
    budget = await ada.get("/v1/budget")

    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    assert [answer.status_code for answer in answers].count(200) == provider.calls == 5
    assert Decimal(budget["spent_usd"]) == settled["usd"] <= limit
    assert budget["reserved_usd"] == "0"


async def test_the_worker_is_killed_in_the_middle_of_a_call(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    stage = killable.stage
    ada = await stage.caller(new_tenant())
    await killable.worker.start()
    await set_limit(ada, Decimal("0.01"))
    provider.script(Hang(), Hang())
    run_id = await ada.start("hello", agent="charged")
    await until(lambda: provider.calls == 1)
    before = await stage.rows(HELD, ada.tenant_id)

    killable.worker.kill()
    await killable.worker.start()
    await until(lambda: provider.calls == 2)
    assert await stage.rows(HELD, ada.tenant_id) == before, "the second attempt has taken the place of the first"

    killable.worker.kill()
    await killable.worker.start()
    run = await ada.ended(run_id)
    budget = await ada.get("/v1/budget")
    assert (len(before), run["reply"]) == (1, "You said: hello")
    assert (budget["spent_usd"], budget["reserved_usd"]) == (run["usage"]["cost_usd"], "0")


async def test_what_a_terminated_run_had_reserved_is_free_again(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Nobody hears of its end but the next run of the conversation, which ends it."""
    await set_limit(ada, Decimal("0.01"))
    provider.script(Hang())
    run_id = await ada.start("hello", agent="charged")
    await until(lambda: provider.calls == 1)
    run = await ada.get(f"/v1/runs/{run_id}")
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:charged:{run['message_id']}").terminate()
    after = await ada.start("and now?", agent="charged", conversation_id=run["conversation_id"])

    assert (await ada.ended(after))["reply"] == "You said: and now?"
    assert (await ada.get("/v1/budget"))["reserved_usd"] == "0"
