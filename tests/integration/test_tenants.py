"""A tenant sees its own rows: PostgreSQL itself sees to it, whatever the code above asks for."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import worker.wiring
from api import pool
from holdfast.config.settings import PoolSettings
from holdfast.domain.errors import ConfigurationError, Unavailable
from holdfast.store import engine
from holdfast.store.engine import Database, create_engine
from holdfast.store.tables.schema import metadata
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.harness.caller import Caller, Json
from tests.harness.stage import AGENTS, PEPPER, Stage, serving_api, worker_settings

TABLES = sorted(metadata.tables)


async def with_a_row_in_every_table(caller: Caller, stage: Stage, provider: ScriptedProvider) -> Json:
    """A run that waits for a person, which leaves something in every table; and a budget, of which some is reserved."""
    await caller.http.put("/v1/budget", json={"limit_usd": 1, "period": "day"})
    link = {"kind": "oidc", "subject": "4711", "principal": "ada"}
    await caller.http.put("/v1/identities", json=link)
    await stage.rows("INSERT INTO reservations VALUES ($1, 'some', NULL, 0.5)", caller.tenant_id)
    await caller.http.put("/v1/provider-keys/nobody", json={"key": "long-enough"})
    await caller.http.put("/v1/switches/agent:frugal", json={"reason": "a test"})
    await caller.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9", "events": ["confirmation.requested"]})
    provider.script(ToolCalls([("pay", {"marker": "m", "amount": 1})], text="Paying."))
    run = await caller.ask("pay")
    thread = "INSERT INTO slack_threads VALUES ($1, 'T1', 'C1', '1.0', $2)"
    await stage.rows(thread, caller.tenant_id, run["conversation_id"])
    post = "INSERT INTO slack_posts VALUES ($1, $2, gen_random_uuid(), NULL, NULL, NULL, 'dlv_1', clock_timestamp())"
    await stage.rows(post, caller.tenant_id, run["id"])
    return run


async def test_no_table_shows_another_tenants_rows(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    await with_a_row_in_every_table(ada, stage, provider)
    stranger = await stage.caller(f"{ada.tenant_id}-other")
    for table in TABLES:
        query = text(f"SELECT count(*) FROM {table} WHERE tenant_id = :tenant_id").bindparams(tenant_id=ada.tenant_id)
        async with stage.database.tenant(ada.tenant_id) as connection:
            own = await connection.scalar(query)
        async with stage.database.tenant(stranger.tenant_id) as connection:
            foreign = await connection.scalar(query)
        assert (table, foreign) == (table, 0)
        assert table == "outbox" or own, f"{table} has a row to hide, or this test hides nothing"


async def test_no_table_takes_a_row_of_another_tenant(ada: Caller, stage: Stage) -> None:
    insert = text("INSERT INTO conversations (tenant_id, conversation_id, last_position) VALUES (:tenant_id, 'c', 0)")
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with stage.database.tenant(f"{ada.tenant_id}-other") as connection:
            await connection.execute(insert, {"tenant_id": ada.tenant_id})


async def test_a_query_without_a_tenant_is_an_error(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    await with_a_row_in_every_table(ada, stage, provider)
    async with stage.database.tenant(ada.tenant_id) as connection:
        await connection.execute(
            text(
                "INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, due_at)"
                " VALUES (:tenant_id, 'start', '', '', 'infinity')"
            ),
            {"tenant_id": ada.tenant_id},
        )
    tenantless = create_engine(stage.database_url, pool_size=1)
    try:
        for table in TABLES:
            with pytest.raises(DBAPIError, match="no tenant is set"):
                async with tenantless.begin() as connection:
                    await connection.execute(text(f"SELECT * FROM {table}"))
    finally:
        await tenantless.dispose()


async def test_the_tenant_ends_with_its_transaction(ada: Caller, stage: Stage) -> None:
    database = Database(create_engine(stage.database_url, pool_size=1))
    try:
        async with database.tenant(ada.tenant_id) as connection:
            assert await connection.scalar(text("SELECT count(*) FROM agents"))
        with pytest.raises(DBAPIError, match="no tenant is set"):
            async with database.relay() as connection:
                await connection.execute(text("SELECT * FROM agents"))
    finally:
        await database.close()


async def test_the_relay_sees_ids_and_no_content(ada: Caller, stage: Stage) -> None:
    for table in sorted({*TABLES} - {"outbox", "switches", "tenants"}):
        with pytest.raises(DBAPIError, match="no tenant is set"):
            async with stage.database.relay() as connection:
                await connection.execute(text(f"SELECT * FROM {table}"))


#: What makes a role unfit, and what the refusal calls it.
UNFIT = [
    ("ALTER ROLE unfit SUPERUSER", "superuser"),
    ("ALTER ROLE unfit BYPASSRLS", "BYPASSRLS"),
    ("ALTER ROLE unfit CREATEROLE", "CREATEROLE"),
    ("ALTER ROLE unfit REPLICATION", "REPLICATION"),
    ("GRANT postgres TO unfit", "superuser"),
    ("CREATE ROLE mighty BYPASSRLS; GRANT mighty TO unfit WITH INHERIT FALSE", "BYPASSRLS"),
    ("GRANT pg_read_server_files TO unfit", "the server's files"),
    ("CREATE ROLE mighty; ALTER TABLE runs OWNER TO mighty; GRANT mighty TO unfit", "owner"),
    ("ALTER FUNCTION holdfast_tenant OWNER TO unfit", "owner"),
    ("ALTER SCHEMA public OWNER TO unfit", "owner"),
    ("GRANT SELECT ON runs TO unfit", None),
]


@pytest.mark.parametrize(("given", "power"), UNFIT)
async def test_a_role_that_can_evade_row_level_security_is_known(stage: Stage, given: str, power: str | None) -> None:
    """In a transaction that is rolled back: roles are the whole server's, which other tests use."""
    owner = create_async_engine(stage.owner_url)
    try:
        async with owner.connect() as connection:
            for statement in ["CREATE ROLE unfit", *given.split("; "), "SET LOCAL ROLE unfit"]:
                await connection.exec_driver_sql(statement)
            powers = (await connection.execute(engine._ROLE)).one().powers
            await connection.rollback()
    finally:
        await owner.dispose()
    assert power in powers if power else powers == []


async def test_a_superuser_is_refused(stage: Stage) -> None:
    database = Database(create_engine(stage.owner_url, pool_size=1))
    try:
        with pytest.raises(ConfigurationError, match="not bound by row-level security"):
            await database.check_role()
    finally:
        await database.close()


async def test_no_process_starts_with_a_role_that_sees_every_tenants_rows(stage: Stage) -> None:
    settings = PoolSettings(
        environment="dev",
        database_url=SecretStr(stage.owner_url),
        key_pepper=SecretStr(PEPPER),
        models=AGENTS.with_name("models.yaml"),
    )
    processes: list[AbstractAsyncContextManager[object]] = [
        serving_api(stage.owner_url, stage.task_queue),
        worker.wiring.wire(worker_settings(stage.owner_url, stage.task_queue)),
        pool.wire(settings),
    ]
    for process in processes:
        with pytest.raises(ConfigurationError, match=r"not bound by row-level security.* `holdfast migrate` makes"):
            async with process:
                pass


async def test_the_application_cannot_rewrite_the_audit_log(ada: Caller, stage: Stage) -> None:
    await ada.ask("hello")
    for statement in ("UPDATE audit SET outcome = 'fine'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with stage.database.tenant(ada.tenant_id) as connection:
                await connection.execute(text(statement))


PATHS: list[Callable[[Json, str], str]] = [
    lambda run, _: f"/v1/runs/{run['id']}",
    lambda run, _: f"/v1/conversations/{run['conversation_id']}/messages",
    lambda _, confirmation: f"/v1/confirmations/{confirmation}",
]


@pytest.mark.parametrize("path", PATHS, ids=["run", "conversation", "confirmation"])
async def test_another_tenants_things_are_not_found(
    ada: Caller, stage: Stage, provider: ScriptedProvider, path: Callable[[Json, str], str]
) -> None:
    run = await with_a_row_in_every_table(ada, stage, provider)
    confirmation = (await ada.only_pending(run))["id"]
    stranger = await stage.caller(f"{ada.tenant_id}-other")

    assert (await ada.http.get(path(run, confirmation))).status_code == 200
    assert (await stranger.http.get(path(run, confirmation))).status_code == 404


async def test_a_message_can_not_be_slipped_into_another_tenants_conversation(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    stranger = await stage.caller(f"{ada.tenant_id}-other")
    response = await stranger.send("boo", conversation_id=run["conversation_id"])

    assert response.status_code == 404
    transcript = await ada.get(f"/v1/conversations/{run['conversation_id']}/messages")
    assert len(transcript["data"]) == 2


TENANTS = 500

_ADD = text("INSERT INTO conversations (tenant_id, conversation_id, last_position) VALUES (:tenant_id, :id, 0)")


async def meet(mishap: str, connection: AsyncConnection, owner: AsyncEngine) -> None:
    """Have something happen in the middle of a transaction."""
    match mishap:
        case "killed":
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            async with owner.connect() as other:
                await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        case "cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await connection.execute(text("SELECT pg_sleep(1)"))
        case "failed":
            await connection.execute(text("SELECT 1 / 0"))


async def test_one_connection_and_many_tenants_and_disconnects_show_nobody_a_foreign_row(
    stage: Stage, new_tenants: list[str]
) -> None:
    """One pooled connection serves 500 tenants in turn, and is killed, or its request cancelled, in mid-transaction."""
    random = Random(7)
    owner = create_async_engine(stage.owner_url, isolation_level="AUTOCOMMIT")
    database = Database(create_engine(stage.database_url, pool_size=1))
    seen: Counter[str] = Counter()

    async def look(tenant_id: str, mishap: str) -> None:
        async with database.tenant(tenant_id) as connection:
            await connection.execute(_ADD, {"tenant_id": tenant_id, "id": f"c{random.random()}"})
            await meet(mishap, connection, owner)
            whose = (await connection.scalars(text("SELECT tenant_id FROM conversations"))).all()
        seen["own"] += whose.count(tenant_id)
        seen["foreign"] += len(whose) - whose.count(tenant_id)

    async def ask(tenant_id: str) -> None:
        mishap = random.choice(["none"] * 6 + ["killed", "cancelled", "failed"])
        seen["mishaps"] += mishap != "none"
        try:
            await look(tenant_id, mishap)
        except (Unavailable, DBAPIError, asyncio.CancelledError):
            seen["ended early"] += 1

    try:
        for _ in range(3):
            await asyncio.gather(*(ask(tenant_id) for tenant_id in new_tenants))
        for tenant_id in new_tenants:
            await look(tenant_id, "none")
    finally:
        await database.close()
        await owner.dispose()
    assert seen["mishaps"] > TENANTS / 2
    assert seen["ended early"] >= seen["mishaps"]
    assert seen["own"] > TENANTS
    assert seen["foreign"] == 0


@pytest.fixture
async def new_tenants(stage: Stage) -> list[str]:
    """The names of many tenants, which are there."""
    names = [f"crowd-{number}-{uuid4().hex[:8]}" for number in range(TENANTS)]
    await stage.rows("INSERT INTO tenants (tenant_id) SELECT unnest($1::text[])", names)
    return names
