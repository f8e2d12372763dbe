"""A budget: what is reserved, what is settled, who is asked for more, and what happens then."""

import asyncio
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from activities.budget import make_room
from holdfast.config import agents_yaml
from holdfast.domain.steps import ModelStep
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Hang, HttpError, Text, ToolCalls
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import AGENTS, Stage

#: Of `priced` in the tests' models.yaml: dollars a token.
INPUT, OUTPUT = Decimal("0.000001"), Decimal("0.00002")

APOLOGY = "this cost more than I may spend"

OF_PERSONS = (
    "SELECT kind, outcome, person, detail FROM audit WHERE tenant_id = $1 AND kind = 'budget' ORDER BY audit_id"
)
RESERVATIONS = "SELECT * FROM reservations WHERE tenant_id = $1"


async def put(caller: Caller, limit: str, raise_by: str | None = None, **more: Any) -> Json:
    """Set the budget, which must be taken."""
    body = {"limit_usd": limit, "period": "day", "raise_by_usd": raise_by, **more}
    response = await caller.http.put("/v1/budget", json=body)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


async def ask(caller: Caller, text: str = "hello", agent: str = "charged", **options: Any) -> Json:
    return await caller.ask(text, agent=agent, **options)


async def all_is_free_again(caller: Caller) -> bool:
    return bool((await caller.get("/v1/budget"))["reserved_usd"] == "0")


async def statuses(caller: Caller) -> list[str]:
    return [one["status"] for one in (await caller.get("/v1/confirmations"))["data"]]


async def test_a_run_settles_what_it_cost_to_the_last_digit(ada: Caller, provider: ScriptedProvider) -> None:
    await put(ada, "1")
    provider.script(ToolCalls([("look_up", {"marker": "m"})]), Text("Found."))
    run = await ask(ada)
    budget = await ada.get("/v1/budget")
    cost = run["usage"]["prompt_tokens"] * INPUT + run["usage"]["completion_tokens"] * OUTPUT

    assert (run["status"], run["reply"], len(run["steps"])) == ("completed", "Found.", 2)
    assert Decimal(budget["spent_usd"]) == Decimal(run["usage"]["cost_usd"]) == cost > 0
    assert budget["reserved_usd"] == "0"


async def test_while_a_model_is_asked_the_most_it_can_cost_is_reserved(ada: Caller, provider: ScriptedProvider) -> None:
    await put(ada, "1")
    provider.script(Hang())
    run_id = await ada.start("hello", agent="charged")
    await until(lambda: provider.calls == 1)
    budget = await ada.get("/v1/budget")
    await ada.http.post(f"/v1/runs/{run_id}/cancel")

    assert (await ada.ended(run_id))["status"] == "cancelled"
    assert Decimal("0.002") < Decimal(budget["reserved_usd"]) < Decimal("0.02"), "100 tokens of answer, and the prompt"
    assert budget["spent_usd"] == "0"
    await until(lambda: all_is_free_again(ada))


async def test_a_call_that_fails_gives_back_what_it_had_reserved(ada: Caller, provider: ScriptedProvider) -> None:
    await put(ada, "1")
    provider.script(HttpError(500), HttpError(400))
    run = await ask(ada)

    assert (run["degraded"], provider.calls) == (True, 2)
    assert await all_is_free_again(ada)


async def test_without_a_budget_nothing_is_asked_and_nothing_reserved(ada: Caller, stage: Stage) -> None:
    run = await ask(ada)

    assert run["reply"] == "You said: hello"
    assert (await ada.http.get("/v1/budget")).status_code == 404
    assert await stage.rows(RESERVATIONS, ada.tenant_id) == []


async def test_a_model_without_a_price_is_not_held_back(ada: Caller) -> None:
    await put(ada, "0")
    run = await ask(ada, agent="support")

    assert run["reply"] == "You said: hello"
    assert (await ada.get("/v1/budget"))["spent_usd"] == "0"


async def test_what_was_spent_before_the_budget_counts(ada: Caller) -> None:
    cost = (await ask(ada))["usage"]["cost_usd"]

    assert (await put(ada, "1"))["spent_usd"] == cost
    assert (await put(ada, "2", period="total"))["spent_usd"] == cost, "set again, it is not counted twice"


async def test_a_new_day_begins_at_nothing(ada: Caller, stage: Stage) -> None:
    await put(ada, "1")
    await ask(ada)
    await stage.rows("UPDATE budgets SET period_began = period_began - interval '1 day'")

    assert (await ada.get("/v1/budget"))["spent_usd"] == "0"
    cost = (await ask(ada))["usage"]["cost_usd"]
    assert (await ada.get("/v1/budget"))["spent_usd"] == cost


async def test_where_nobody_is_to_be_asked_the_run_ends_at_once(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    await put(ada, "0.001")
    run = await ask(ada)
    (refused,) = await stage.rows(
        "SELECT detail FROM audit WHERE run_id = $1 AND kind = 'model_call' AND outcome = 'refused'", run["id"]
    )

    assert (run["status"], run["degraded"], run["error"]) == ("completed", True, "out_of_budget")
    assert APOLOGY in run["reply"]
    assert refused["detail"].startswith("of $0.001 a day, $0 are spent and $0 reserved; this call may cost $0.00")
    assert (provider.calls, await statuses(ada)) == (0, [])


async def test_a_person_raises_the_budget_and_the_run_goes_on(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    boss = await stage.caller(ada.tenant_id, "boss", ["finance"])
    await put(boss, "0.001", "0.5", approvers=["finance"])
    run = await ask(ada)
    asked = await ada.only_pending(run)

    assert (asked["kind"], asked["tool_call_id"], asked["tool"]) == ("budget", None, "raise_budget")
    assert asked["arguments"] == {"limit_usd": "0.001", "raise_by_usd": "0.5", "spent_usd": "0"}
    assert (asked["approvers"], asked["on_deadline"]) == (["finance"], "reject")
    assert asked["rule"].startswith("raise the budget by $0.5? of $0.001 a day, $0 are spent")
    assert [(await boss.decide(asked, decision)).status_code for decision in ("edit", "respond")] == [422, 422]
    assert (await ada.decide(asked)).status_code == 403
    assert (await boss.decide({**asked, "arguments_digest": "0" * 64})).status_code == 412
    assert provider.calls == 0

    assert [(await boss.decide(asked)).status_code for _ in range(2)] == [200, 200]
    run = await ada.ended(run["id"])
    budget = await ada.get("/v1/budget")
    assert (run["reply"], run["degraded"], len(run["steps"])) == ("You said: hello", False, 1)
    assert (budget["limit_usd"], budget["reserved_usd"]) == ("0.501", "0")
    assert budget["spent_usd"] == run["usage"]["cost_usd"]
    assert [tuple(row) for row in await stage.rows(OF_PERSONS, ada.tenant_id)] == [
        ("budget", "set", "boss", "$0.001, day"),
        ("budget", "raised", "boss", "from $0.001 to $0.501"),
    ]


async def test_a_person_refuses_and_the_run_ends(ada: Caller, provider: ScriptedProvider) -> None:
    await put(ada, "0.001", "1")
    run = await ask(ada)
    await ada.decide(await ada.only_pending(run), "reject", reason="not today")
    run = await ada.ended(run["id"])

    assert (run["status"], run["error"]) == ("completed", "out_of_budget")
    assert APOLOGY in run["reply"]
    assert (provider.calls, (await ada.get("/v1/budget"))["limit_usd"]) == (0, "0.001")


async def test_nobody_decides_in_time_and_the_run_ends(ada: Caller, provider: ScriptedProvider) -> None:
    await put(ada, "0.001", "1")
    run_id = await ada.start("hello", agent="charged_hasty")
    asked = await ada.confirmation_of(run_id)
    run = await ada.ended(run_id)

    assert (run["status"], run["error"]) == ("completed", "out_of_budget")
    assert APOLOGY in run["reply"]
    assert (await ada.decide(asked)).status_code == 409
    assert (provider.calls, (await ada.get("/v1/budget"))["limit_usd"]) == (0, "0.001")


async def test_one_approval_is_enough_for_every_run_that_waits(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    runs = await asyncio.gather(*(ask(ada, f"message {number}") for number in range(3)))
    asked = [await ada.only_pending(run) for run in runs]
    await ada.decide(asked[1])
    ended = [await ada.ended(run["id"]) for run in runs]

    assert [run["reply"] for run in ended] == [f"You said: message {number}" for number in range(3)]
    assert (await ada.get("/v1/budget"))["limit_usd"] == "1.001", "raised once"
    assert sorted(await statuses(ada)) == ["approved", "withdrawn", "withdrawn"]
    late = await ada.decide(asked[0])
    assert (late.status_code, "budget changed" in late.json()["detail"]) == (409, True)


async def test_approvals_at_one_moment_raise_it_once(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    runs = await asyncio.gather(*(ask(ada) for _ in range(4)))
    asked = [await ada.only_pending(run) for run in runs]
    answers = await asyncio.gather(*(ada.decide(one) for one in asked))
    ended = [await ada.ended(run["id"]) for run in runs]

    assert {run["reply"] for run in ended} == {"You said: hello"}
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert (await ada.get("/v1/budget"))["limit_usd"] == "1.001"


async def test_several_approved_together_raise_it_once(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    runs = await asyncio.gather(*(ask(ada) for _ in range(3)))
    asked = [await ada.only_pending(run) for run in runs]
    decisions = [{"id": one["id"], "decision": "approve", "arguments_digest": one["arguments_digest"]} for one in asked]
    answer = await ada.http.post("/v1/confirmations/decisions", json={"decisions": decisions})

    assert answer.status_code == 200
    assert {(await ada.ended(run["id"]))["reply"] for run in runs} == {"You said: hello"}
    assert (await ada.get("/v1/budget"))["limit_usd"] == "1.001"


async def test_a_raise_that_is_too_small_is_followed_by_another_question(
    ada: Caller, provider: ScriptedProvider
) -> None:
    await put(ada, "0", "0.000001")
    run = await ask(ada)
    first = await ada.only_pending(run)
    await ada.decide(first)
    again: list[Json] = []

    async def is_asked_again() -> bool:
        again[:] = await ada.pending(run)
        return bool(again)

    await until(is_asked_again)
    assert (first["arguments"]["limit_usd"], again[0]["arguments"]["limit_usd"]) == ("0", "0.000001")
    await ada.decide(again[0], "reject")
    assert APOLOGY in (await ada.ended(run["id"]))["reply"]
    assert provider.calls == 0


async def test_a_limit_that_is_set_higher_lets_go_what_waits(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    run = await ask(ada)
    assert (await ada.only_pending(run))["kind"] == "budget"
    await put(ada, "0.5")

    assert (await ada.ended(run["id"]))["reply"] == "You said: hello"
    assert await statuses(ada) == ["withdrawn"]


async def test_a_question_of_yesterday_is_not_asked_today(ada: Caller, stage: Stage) -> None:
    """At its deadline, the day is another one, and there is room."""
    await put(ada, "0.1", "1")
    await stage.rows("UPDATE budgets SET spent_usd = 0.1 WHERE tenant_id = $1", ada.tenant_id)
    run_id = await ada.start("hello", agent="charged_hasty")
    asked = await ada.confirmation_of(run_id)
    await stage.rows(
        "WITH earlier AS (UPDATE confirmations SET created_at = created_at - interval '1 day' WHERE tenant_id = $1)"
        " UPDATE budgets SET period_began = period_began - interval '1 day' WHERE tenant_id = $1",
        ada.tenant_id,
    )
    run = await ada.ended(run_id)

    assert (asked["status"], run["reply"]) == ("pending", "You said: hello")
    assert await statuses(ada) == ["withdrawn"]


async def test_a_run_that_is_cancelled_asks_no_longer(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    run = await ask(ada)
    await ada.http.post(f"/v1/runs/{run['id']}/cancel")

    assert (await ada.ended(run["id"]))["status"] == "cancelled"
    assert await statuses(ada) == ["withdrawn"]


async def test_a_word_in_the_chat_raises_no_budget(ada: Caller) -> None:
    await put(ada, "0.001", "1")
    run = await ask(ada)
    await ada.start("yes", agent="charged", conversation_id=run["conversation_id"])

    assert await statuses(ada) == ["pending"]
    assert (await ada.get("/v1/budget"))["limit_usd"] == "0.001"


async def test_an_attempt_that_begins_again_finds_what_was_asked(ada: Caller, stage: Stage) -> None:
    """The worker died after the question was stored, and before Temporal heard of it."""
    await put(ada, "0.001", "1")
    run = await ask(ada)
    asked = await ada.only_pending(run)
    step = ModelStep(ada.tenant_id, run["id"], 1)
    (agent,) = (spec for spec in agents_yaml.load_agents(AGENTS).agents if spec.name == "charged")

    async with stage.database.tenant(ada.tenant_id) as connection:
        again = await make_room(connection, step, agent, Decimal("0.01"))
    assert again is not None
    assert again.asked is not None
    assert again.asked.confirmation_id == asked["id"]

    await stage.rows("UPDATE budgets SET limit_usd = 1 WHERE tenant_id = $1", ada.tenant_id)
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert await make_room(connection, step, agent, Decimal("0.01")) is None
    assert await statuses(ada) == ["withdrawn"]
    assert (await ada.get(f"/v1/runs/{run['id']}"))["status"] == "running"
    assert (await ada.get("/v1/budget"))["reserved_usd"] == "0.01"


@pytest.mark.parametrize("path", ["/complete", "/complete/stream", "/generate"])
async def test_the_pool_settles_and_refuses(ada: Caller, provider: ScriptedProvider, path: str) -> None:
    provider.default = lambda _: Text('{"n": 1}')
    await put(ada, "1")
    body: Json = {"alias": "priced", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
    body |= {"schema": {"type": "object"}} if path == "/generate" else {}
    assert (await ada.http.post(path, json=body)).status_code == 200
    budget = await ada.get("/v1/budget")
    assert (Decimal(budget["spent_usd"]) > 0, budget["reserved_usd"]) == (True, "0")

    await put(ada, "0.00001")
    refused = await ada.http.post(path, json=body)
    assert (refused.status_code, refused.json()["title"]) == (429, "Budget exceeded")
    assert refused.json()["detail"].startswith("The budget has no room: of $0.00001 a day, $0.000")
    assert provider.calls == 1
    assert (await ada.http.post(path, json={**body, "alias": "quality"})).status_code == 200, "that one has no price"


async def test_a_call_of_the_pool_that_fails_gives_back_what_it_had_reserved(
    ada: Caller, provider: ScriptedProvider
) -> None:
    await put(ada, "1")
    provider.script(HttpError(400))
    body = {"alias": "priced", "messages": [{"role": "user", "content": "hello"}]}

    assert (await ada.http.post("/complete", json=body)).status_code == 422
    assert await all_is_free_again(ada)


async def test_what_a_dead_pool_had_reserved_counts_for_an_hour(ada: Caller, stage: Stage) -> None:
    await put(ada, "0.1")
    await stage.rows(
        "INSERT INTO reservations (tenant_id, reservation_id, amount_usd, created_at) VALUES"
        " ($1, 'old', 0.1, now() - interval '61 minutes'), ($1, 'young', 0.05, now() - interval '59 minutes')",
        ada.tenant_id,
    )

    assert (await ada.get("/v1/budget"))["reserved_usd"] == "0.05"
    assert (await ask(ada))["reply"] == "You said: hello"
    assert [row["reservation_id"] for row in await stage.rows(RESERVATIONS, ada.tenant_id)] == ["young"]


async def test_a_budget_of_approvers_is_set_by_one_of_them(ada: Caller, stage: Stage) -> None:
    boss = await stage.caller(ada.tenant_id, "boss", ["finance"])
    await put(ada, "1", approvers=["finance"])
    refused = await ada.http.put("/v1/budget", json={"limit_usd": "1000", "period": "day"})

    assert (refused.status_code, "roles is needed: finance" in refused.json()["detail"]) == (403, True)
    assert (await put(boss, "2", approvers=["finance"]))["limit_usd"] == "2"


async def test_the_command_line_sets_and_shows_it(ada: Caller, stage: Stage) -> None:
    program = str(Path(sys.executable).parent / "holdfast")
    environment = {**os.environ, "HOLDFAST_URL": stage.url, "HOLDFAST_API_KEY": ada.key}

    async def run(*arguments: str) -> tuple[int, list[str]]:
        command = [program, "budget", *arguments]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )
        return ended.returncode, (ended.stdout + ended.stderr).splitlines()

    assert await run("show") == (1, [f"There is no budget of the tenant '{ada.tenant_id}'."])
    options = ["--limit", "20", "--period", "month", "--raise-by", "5.50", "--approver", "finance"]
    stands = [
        "limit      $20 (month)",
        "spent      $0",
        "reserved   $0",
        "raise by   $5.5",
        "approvers  finance",
    ]
    assert await run("set", *options) == (0, stands)
    assert await run("show") == (0, stands)
    assert (await run("set", "--limit", "nought"))[0] == 1


async def test_another_tenants_budget_is_another(ada: Caller, stage: Stage) -> None:
    await put(ada, "0")
    other = await stage.caller(f"{ada.tenant_id}-other")

    assert (await other.http.get("/v1/budget")).status_code == 404
    assert (await ask(other))["reply"] == "You said: hello"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": "NaN"}, "limit_usd"),
        ({"limit_usd": "1e10"}, "limit_usd"),
        ({"limit_usd": "0.0000000001"}, "limit_usd"),
        ({"limit_usd": None}, "limit_usd"),
        ({"period": "week"}, "period"),
        ({"raise_by_usd": 0}, "raise_by_usd"),
        ({"approvers": ["Finance!"]}, "approvers.0"),
        ({"approvers": ["finance"] * 21}, "approvers"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(ada: Caller, change: Json, field: str) -> None:
    refused = await ada.http.put("/v1/budget", json={"limit_usd": 1, "period": "day", **change})

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert (await ada.http.get("/v1/budget")).status_code == 404
