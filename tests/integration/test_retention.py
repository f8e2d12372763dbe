"""What has had its time goes, a little at a time; what has not stays, and whoever comes too late is told so."""

from datetime import timedelta

from holdfast.services.retention import DELTAS_KEPT, Retention, kept
from holdfast.store.retention import remove_deltas, remove_events
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.harness.caller import Caller
from tests.harness.reading import shown, types, whole_log
from tests.harness.stage import Stage

_DAY = timedelta(days=1)

POST = """
INSERT INTO slack_posts (tenant_id, subject_id, post_key, ts, delivery_id, claimed_until)
VALUES ($1, $2, gen_random_uuid(), '1.0', 'dlv_1', '-infinity')
"""


async def aged(stage: Stage, run_id: str, by: timedelta) -> None:
    """Have a run have happened earlier."""
    await stage.rows(
        "UPDATE runs SET created_at = created_at - $2::interval, completed_at = completed_at - $2::interval"
        " WHERE run_id = $1",
        run_id,
        by,
    )


async def removed(stage: Stage, events: timedelta | None = _DAY) -> None:
    await Retention(stage.database, kept(events)).remove_aged()


async def test_pieces_of_text_go_first_and_nobody_misses_them(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    log = await whole_log(ada, run["id"])
    await removed(stage)
    assert await whole_log(ada, run["id"]) == log, "it is not their time"

    await aged(stage, run["id"], DELTAS_KEPT)
    await removed(stage)

    left = [told for told in log if told.type != "message.delta"]
    assert len(left) < len(log)
    assert await stage.rows("SELECT FROM deltas WHERE run_id = $1", run["id"]) == []
    for after in range(len(log)):
        assert await whole_log(ada, run["id"], after) == [told for told in left if told.seq > after]
    assert shown(left) == run["reply"]


async def test_events_go_and_whoever_asks_for_them_is_told(ada: Caller, stage: Stage) -> None:
    body = {"agent": "support", "text": "hello"}
    headers = {"accept": "text/event-stream", "idempotency-key": "one"}
    await ada.http.post("/v1/messages", json=body, headers=headers)
    (run,) = (await ada.get("/v1/runs"))["data"]
    await aged(stage, run["id"], _DAY)
    await removed(stage, events=None)
    assert types(await whole_log(ada, run["id"]))[-1] == "run.completed", "for good, if so said"
    await removed(stage)

    answers = [
        await ada.http.get(f"/v1/runs/{run['id']}/events", params={"after": 3}),
        await ada.http.post("/v1/messages", json=body, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [410, 410]
    assert [answer.json()["title"] for answer in answers] == ["Gone", "Gone"]
    assert run["id"] in answers[0].json()["detail"]
    assert (await ada.get(f"/v1/runs/{run['id']}"))["reply"] == "You said: hello"
    stranger = await stage.caller(f"{ada.tenant_id}-other", "eve")
    assert (await stranger.http.get(f"/v1/runs/{run['id']}/events")).status_code == 404


async def test_what_receivers_were_told_goes_with_the_events(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    told = {"url": "http://127.0.0.1:9", "events": ["run.completed"]}
    assert (await ada.http.post("/v1/webhooks", json=told)).status_code == 201
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]))
    run, other = await ada.ask("pay"), await ada.ask("hello")
    confirmation = await ada.only_pending(run)
    await ada.decide(confirmation, "reject")
    await ada.ended(run["id"])
    posts = [run["id"], confirmation["id"], f"{confirmation['id']}:reminder"]
    for post in (*posts, other["id"]):
        await stage.rows(POST, ada.tenant_id, post)
    listed = "SELECT FROM deliveries WHERE run_id = $1"
    posted = "SELECT subject_id FROM slack_posts WHERE tenant_id = $1 ORDER BY created_at"
    await removed(stage)
    assert len(await stage.rows(listed, run["id"])) == 1
    assert len(await stage.rows(posted, ada.tenant_id)) == 4
    await aged(stage, run["id"], _DAY)
    await removed(stage)

    assert await stage.rows(listed, run["id"]) == []
    assert [row["subject_id"] for row in await stage.rows(posted, ada.tenant_id)] == [other["id"]]


async def test_an_open_run_keeps_what_is_told_of_it(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})], text="I'll pay."))
    run = await ada.ask("pay")
    log = await whole_log_so_far(ada, run["id"])
    await aged(stage, run["id"], 90 * _DAY)
    await removed(stage)

    assert await whole_log_so_far(ada, run["id"]) == log


async def whole_log_so_far(ada: Caller, run_id: str) -> str:
    return (await ada.http.get(f"/v1/runs/{run_id}/events", params={"follow": "false"})).text


async def test_a_little_at_a_time_and_not_what_is_being_erased(ada: Caller, stage: Stage) -> None:
    runs = [(await ada.ask("hello"))["id"] for _ in range(3)]
    for run_id in runs:
        await aged(stage, run_id, _DAY)
    young = (await ada.ask("hello"))["id"]

    async def look(after: str = "") -> tuple[int, str, bool]:
        async with stage.database.tenant(ada.tenant_id) as connection:
            one = await remove_events(connection, ada.tenant_id, _DAY, after=after, limit=2)
        return one.runs, one.last, one.is_all

    async with stage.database.tenant(ada.tenant_id) as erasing:
        await erasing.exec_driver_sql(f"SELECT FROM runs WHERE run_id = '{runs[1]}' FOR UPDATE")
        assert await look() == (1, runs[1], False), "nobody waits for an erasure, and it for nobody"
    assert await look() == (2, runs[2], False)
    assert await look() == (0, young, True)
    assert types(await whole_log(ada, young))[-1] == "run.completed"
    async with stage.database.tenant(ada.tenant_id) as connection:
        assert (await remove_deltas(connection, ada.tenant_id, _DAY)).runs == 3
