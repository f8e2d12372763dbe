"""What is erased is in no column of any table any more, and the audit log still holds."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from holdfast.domain.errors import ConfigurationError, NotFound
from holdfast.secrecy.erased_keys import ErasedKeys
from holdfast.services.audit_verification import Tally
from holdfast.services.erasure import Erased, Scope, erase
from holdfast.store import erasure
from holdfast.store.engine import Database, create_engine
from holdfast.store.tables.schema import metadata
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.harness.audit import Tampered, wrong
from tests.harness.caller import Caller, Json
from tests.harness.stage import PEPPER, Stage, serving_api

_WORDS = ("question", "thought", "argument", "edited", "reason", "answer", "key", "metadata")


SLACK_POST = """
INSERT INTO slack_posts (tenant_id, subject_id, post_key, ts, shown, delivery_id, claimed_until)
VALUES ($1, $2, gen_random_uuid(), '1.0', $3, 'dlv_1', '-infinity')
"""


def canaries(of: str) -> dict[str, str]:
    return {word: f"canary-{word}-{of}" for word in _WORDS}


async def erased(stage: Stage, scope: Scope) -> Erased:
    owner = Database(create_engine(stage.owner_url, pool_size=1))
    try:
        return await erase(owner, scope, ErasedKeys.of(PEPPER), "olga")
    finally:
        await owner.close()


async def columns_with(stage: Stage, needle: str) -> set[str]:
    """Every column of every table of the schema that holds a text, of whichever tenant."""
    found = set()
    names = await stage.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    )
    for table, column in names:
        query = f'SELECT EXISTS (SELECT FROM "{table}" WHERE position($1 IN "{column}"::text) > 0)'
        (row,) = await stage.rows(query, needle)
        if row["exists"]:
            found.add(f"{table}.{column}")
    return found


async def left_of(stage: Stage, *needles: str) -> dict[str, set[str]]:
    left = {needle: await columns_with(stage, needle) for needle in needles}
    return {needle: columns for needle, columns in left.items() if columns}


async def talk(caller: Caller, provider: ScriptedProvider, said: dict[str, str], **options: str) -> Json:
    """A run that leaves each of the words somewhere."""
    provider.script(
        ToolCalls([("pay", {"marker": said["argument"], "amount": 7})], text=said["thought"]), Text(said["answer"])
    )
    run = await caller.ask(said["question"], key=said["key"], metadata={"of": said["metadata"]}, **options)
    arguments = {"marker": said["edited"], "amount": 7}
    response = await caller.decide(await caller.only_pending(run), "edit", arguments=arguments, reason=said["reason"])
    assert response.status_code == 200, response.text
    run = await caller.ended(run["id"])
    assert run["status"] == "completed"
    return run


async def test_a_person_is_erased(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    bob = await stage.caller(ada.tenant_id, "canary-bob")
    bobs, adas, with_bob = canaries("bobs"), canaries("adas"), canaries("with-bob")
    run = await talk(bob, provider, bobs)
    kept = await talk(ada, provider, adas)
    together = await talk(ada, provider, with_bob, conversation_id=run["conversation_id"])
    assert len(await columns_with(stage, bobs["argument"])) >= 2, "it is there to be erased"
    assert len(await columns_with(stage, "canary-bob")) >= 6

    done = await erased(stage, Scope(ada.tenant_id, person="canary-bob"))

    assert (done.runs, done.messages, done.left) == (2, 3, 0)
    assert await left_of(stage, "canary-bob", *bobs.values()) == {}
    # What Ada said herself stays; what the agent made of it, where Bob was there, goes.
    left = await left_of(stage, *with_bob.values())
    assert set(left) == {with_bob["question"], with_bob["key"], with_bob["metadata"]}
    assert (await ada.get(f"/v1/runs/{kept['id']}"))["reply"] == adas["answer"]
    shown = await ada.get(f"/v1/runs/{run['id']}")
    assert (shown["status"], shown["reply"], shown["tool_calls"][0]["status"]) == ("completed", "[erased]", "succeeded")
    names = await stage.rows("SELECT DISTINCT requested_by FROM runs WHERE tenant_id = $1", ada.tenant_id)
    assert sorted(row["requested_by"][:7] for row in names) == ["ada", "erased:"]

    tally = Tally()
    assert await wrong(stage.database, ada.tenant_id, tally) == []
    assert tally.erased == done.entries + sum(1 for _ in await only_names(stage, ada.tenant_id))
    (entry,) = (await ada.get("/v1/audit", kind="erasure"))["data"]
    assert entry["person"] == "olga"
    assert entry["detail"].startswith("by person: 2 runs, 3 messages")
    provider.script(Text("Still here."))
    again = await ada.ask("and now?", conversation_id=together["conversation_id"])
    assert again["reply"] == "Still here.", "the conversation goes on"


async def only_names(stage: Stage, tenant_id: str) -> list[object]:
    """The entries of which nothing but the name is erased."""
    query = "SELECT 1 FROM audit WHERE tenant_id = $1 AND erased ? 'person' AND erased - 'person' = '{}'"
    return list(await stage.rows(query, tenant_id))


async def test_a_person_is_erased_under_every_name_that_is_theirs_alone(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Bob had a key for `canary-old` and one for `canary-team`, as others have; both are his now, as `canary-bob`."""
    before = {name: await stage.caller(ada.tenant_id, name) for name in ("canary-old", "canary-team")}
    await stage.caller(ada.tenant_id, "canary-team")
    said = {name: (await caller.ask(f"said by {name}"))["id"] for name, caller in before.items()}
    for key in (await ada.get("/v1/keys"))["data"][1:]:
        body = {"kind": "key", "subject": key["id"], "principal": "canary-bob"}
        if key["person"].startswith("canary-"):
            assert (await ada.http.put("/v1/identities", json=body)).status_code == 200
    token = {"kind": "oidc", "subject": "canary-4711", "principal": "canary-bob"}
    assert (await ada.http.put("/v1/identities", json=token)).status_code == 200

    assert (await erased(stage, Scope(ada.tenant_id, person="canary-bob"))).runs == 1
    left = await left_of(stage, "canary-bob", "canary-4711", "canary-old", "said by canary-old", "said by canary-team")
    assert set(left) == {"said by canary-team"}
    assert (await ada.get(f"/v1/runs/{said['canary-team']}"))["status"] == "completed"
    assert await columns_with(stage, "canary-team"), "that name is another's too"


async def test_a_message_that_comes_again_after_its_erasure_is_not_answered_again(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    first = (await ada.send("hello", key="canary-delivery-1", wait=30)).json()
    # What looks erased, and is not.
    second = (await ada.send("[erased]", key="canary-delivery-2", metadata={"of": "canary"}, wait=30)).json()
    await erased(stage, Scope(ada.tenant_id, older_than=timedelta(0)))
    await erased(stage, Scope(ada.tenant_id, older_than=timedelta(0)))
    assert await left_of(stage, "canary-delivery") == {}
    assert await stage.rows("SELECT FROM messages WHERE tenant_id = $1 AND metadata <> '{}'", ada.tenant_id) == []

    asked = provider.calls
    again = [(await ada.send("hello", key=f"canary-delivery-{n}")).json() for n in (1, 2)]
    others = {"key_pepper": SecretStr("n" * 32), "key_pepper_previous": SecretStr(PEPPER)}
    async with serving_api(stage.database_url, stage.task_queue, **others) as url:
        new_pepper = Caller(url, ada.key, ada.tenant_id, ada.person)
        again.append((await new_pepper.send("hello", key="canary-delivery-1")).json())
        await new_pepper.http.aclose()

    assert [one["run_id"] for one in again] == [first["id"], second["id"], first["id"]]
    assert {one["accepted"] for one in again} == {False}
    assert provider.calls == asked


async def test_what_hides_behind_an_erasure_is_found(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    bob = await stage.caller(ada.tenant_id, "bob")
    await talk(bob, provider, canaries("hidden"))
    await talk(ada, provider, canaries("shown"))
    await erased(stage, Scope(ada.tenant_id, person="bob"))
    (row,) = await stage.rows("SELECT subject_id FROM audit WHERE tenant_id = $1 AND kind = 'erasure'", ada.tenant_id)
    one_more = (
        "UPDATE audit SET person = 'erased:0', salts = salts - 'person',"
        f" erased = jsonb_build_object('person', '{row['subject_id']}')"
        " WHERE tenant_id = :t AND person = 'ada' AND kind = 'confirmation'"
    )

    assert await wrong(stage.database, ada.tenant_id) == []
    (found,) = await wrong(Tampered(stage.owner_url, ada.tenant_id, [one_more]), ada.tenant_id)
    assert found.endswith(f"what is marked as erased by '{row['subject_id']}' is not what an erasure on record took")


async def test_a_tenant_is_erased_except_for_what_is_open(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    boss = await stage.caller(ada.tenant_id, "canary-boss")
    other = await stage.caller(f"{ada.tenant_id}-other", "canary-neighbour")
    said, of_other = canaries("tenants"), canaries("neighbours")
    await talk(boss, provider, said)
    await talk(other, provider, of_other)
    provider.script(ToolCalls([("pay", {"marker": "open", "amount": 7})]), Text("Done."))
    open_run = await boss.ask("canary-open")

    done = await erased(stage, Scope(ada.tenant_id))
    assert (done.runs, done.left) == (1, 1)
    assert await left_of(stage, *said.values()) == {}
    assert await columns_with(stage, "canary-open") == {"messages.text"}
    assert {column.partition(".")[0] for column in await columns_with(stage, "canary-boss")} == {
        "api_keys",
        "audit",
        "confirmations",
        "runs",
    }
    assert set(await left_of(stage, *of_other.values())) == set(of_other.values())
    assert await wrong(stage.database, ada.tenant_id) == []

    await boss.decide(await boss.only_pending(open_run))
    await boss.ended(open_run["id"])
    assert (await erased(stage, Scope(ada.tenant_id))).left == 0
    assert await left_of(stage, "canary-boss", "canary-open") == {}
    assert await columns_with(stage, "canary-neighbour")
    assert await wrong(stage.database, ada.tenant_id) == []


async def test_what_is_old_is_erased(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    old, young = canaries("old"), canaries("young")
    run = await talk(ada, provider, old)
    await stage.rows("UPDATE runs SET completed_at = now() - interval '91 days' WHERE run_id = $1", run["id"])
    confirmation_id = run["tool_calls"][0]["confirmation_id"]
    for subject in (run["id"], confirmation_id, f"{confirmation_id}:reminder"):
        await stage.rows(SLACK_POST, ada.tenant_id, subject, "canary-digest")
    await talk(ada, provider, young)

    done = await erased(stage, Scope(ada.tenant_id, older_than=timedelta(days=90)))
    assert (done.runs, done.messages, done.names, done.left) == (1, 2, 0, 0)
    assert await left_of(stage, *old.values(), "canary-digest") == {}
    assert set(await left_of(stage, *young.values())) == set(young.values())
    approved = (await ada.get("/v1/audit", run_id=run["id"], outcome="approved"))["data"]
    assert [one["person"] for one in approved] == ["ada"], "who decided stays on record"
    assert await wrong(stage.database, ada.tenant_id) == []


async def test_whoever_is_called_like_an_erased_one_is_erased_too(ada: Caller, stage: Stage) -> None:
    await ada.ask("hello", sender="erased:canary")
    await erased(stage, Scope(ada.tenant_id))
    assert await left_of(stage, "erased:canary") == {}
    made = await ada.http.post("/v1/keys", json={"person": "erased:canary"})
    assert (made.status_code, made.json()["errors"][0]["field"]) == (422, "person")


async def test_done_again_it_finds_nothing_more(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    await talk(ada, provider, canaries("once"))
    first = await erased(stage, Scope(ada.tenant_id))
    second = await erased(stage, Scope(ada.tenant_id))

    assert first.messages == 2
    assert (second.messages, second.entries, second.names) == (0, 0, 0)
    assert await wrong(stage.database, ada.tenant_id) == []


async def test_on_the_command_line(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    said = canaries("typed")
    await talk(ada, provider, said)
    tenant = ["--tenant", ada.tenant_id]
    refused = [
        await holdfast(stage, "erase", "--tenant", "nobody", "--yes"),
        await holdfast(stage, "erase", *tenant, "--person", "ada", "--before", "1d", "--yes"),
        await holdfast(stage, "erase", *tenant, "--person", " ", "--yes"),
        await holdfast(stage, "erase", *tenant, "--before", "soon", "--yes"),
    ]
    unsure = await holdfast(stage, "erase", *tenant)
    assert [(one.returncode, one.stderr.count("\n")) for one in refused] == [(1, 1)] * 4
    assert unsure.returncode == 1
    assert await left_of(stage, said["answer"])

    done = await holdfast(stage, "erase", *tenant, "--person", "ada", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("erased: 1 runs, 2 messages, ")
    assert await left_of(stage, *said.values()) == {}
    again = await holdfast(stage, "erase", *tenant, "--person", "ada", "--yes")
    assert (again.returncode, again.stderr[:29]) == (0, "nobody is known by this name,")


async def holdfast(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "HOLDFAST_DATABASE_URL": stage.database_url,
        "HOLDFAST_DATABASE_OWNER_URL": stage.owner_url,
        "HOLDFAST_KEY_PEPPER": PEPPER,
    }
    return await asyncio.to_thread(
        subprocess.run,
        [str(Path(sys.executable).parent / "holdfast"), *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_application_may_not_erase(ada: Caller, stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match="HOLDFAST_DATABASE_OWNER_URL: the role may not erase"):
        await erase(stage.database, Scope(ada.tenant_id), ErasedKeys.of(PEPPER), "olga")


async def test_a_tenant_that_is_not_there_is_not_erased(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await erased(stage, Scope("nobody"))


def named() -> Iterator[tuple[str, str]]:
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.name in ("person", "sender", "principal") or column.name.endswith("_by"):
                yield table.name, column.name


def test_no_column_that_names_a_person_is_forgotten() -> None:
    known = {
        (table, name)
        for table, names in {**erasure.NAMES, **erasure.NAMES_OF_NO_RUN, **erasure.LINKS}.items()
        for name in names
    }
    assert set(named()) == known | {("audit", "person")}, "say in holdfast/store/erasure.py how it is erased"
