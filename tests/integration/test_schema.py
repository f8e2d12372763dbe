"""The schema on one page is the schema that the migrations make, and no table forgets its policy."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from asyncpg import CheckViolationError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast.domain import confirmations, runs, tools
from holdfast.domain.errors import Unavailable
from holdfast.store.engine import Database, create_engine
from holdfast.store.tables.schema import metadata
from tests.harness.caller import Caller
from tests.harness.stage import Stage

STATES: list[tuple[str, frozenset[Any], Mapping[Any, frozenset[Any]]]] = [
    ("runs", runs.FIRST, runs.TRANSITIONS),
    ("tool_calls", tools.FIRST, tools.TRANSITIONS),
    ("confirmations", confirmations.FIRST, confirmations.TRANSITIONS),
]


async def test_the_migrations_make_the_schema_on_one_page(stage: Stage) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        return list(compare_metadata(context, metadata))

    engine = create_async_engine(stage.owner_url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_every_table_is_bound_by_row_level_security(stage: Stage) -> None:
    tables = await stage.rows(
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    policies = await stage.rows("SELECT tablename, qual, with_check FROM pg_policies WHERE schemaname = 'public'")

    assert {row["relname"] for row in tables} == set(metadata.tables)
    assert [row["relname"] for row in tables if not (row["relrowsecurity"] and row["relforcerowsecurity"])] == []
    guarded = {
        row["tablename"]
        for row in policies
        if "holdfast_tenant(" in (row["qual"] or "") and "holdfast_tenant(" in (row["with_check"] or "")
    }
    assert guarded == set(metadata.tables)


async def test_every_table_and_every_unique_index_begins_with_the_tenant(stage: Stage) -> None:
    columns = await stage.rows("SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'")
    indexes = await stage.rows(
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'alembic%'"
    )

    assert {row["table_name"] for row in columns} == set(metadata.tables)
    assert [row["relname"] for row in indexes if row["attname"] != "tenant_id"] == []
    assert len(indexes) >= len(metadata.tables)


async def test_the_application_owns_nothing(stage: Stage) -> None:
    owned = await stage.rows("SELECT relname FROM pg_class WHERE relowner = 'holdfast_app'::regrole")
    (role,) = await stage.rows("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'holdfast_app'")

    assert owned == []
    assert (role["rolsuper"], role["rolbypassrls"]) == (False, False)


@pytest.mark.parametrize(("table", "first", "transitions"), STATES, ids=[table for table, _, _ in STATES])
async def test_the_database_accepts_the_transitions_of_the_domain_and_no_other(
    stage: Stage, table: str, first: frozenset[Any], transitions: Mapping[Any, frozenset[Any]]
) -> None:
    triggers = await stage.rows(
        "SELECT tgname, tgenabled, encode(tgargs, 'escape') AS argument FROM pg_trigger"
        " WHERE tgrelid = $1::text::regclass AND NOT tgisinternal ORDER BY tgname",
        table,
    )
    expected = {"": set(first)} | {state: set(following) for state, following in transitions.items() if following}

    assert [row["tgname"] for row in triggers] == [f"{table}_status_insert", f"{table}_status_update"]
    assert {row["tgenabled"] for row in triggers} == {b"O"}
    for row in triggers:
        argument = json.loads(row["argument"].removesuffix("\\000"))
        assert {state: set(following) for state, following in argument.items()} == expected


async def test_a_wrong_transition_is_impossible_also_for_the_owner(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    for status in ("running", "queued", "failed"):
        with pytest.raises(CheckViolationError, match="can't go from"):
            await stage.rows("UPDATE runs SET status = $2 WHERE run_id = $1", run["id"], status)


async def test_a_process_that_runs_through_a_migration_says_once_to_try_again(stage: Stage) -> None:
    database = Database(create_engine(stage.owner_url, pool_size=1))

    async def run(statement: str) -> None:
        async with database.tenant("somebody") as connection:
            await connection.execute(text(statement))

    await run("CREATE TEMPORARY TABLE migrated AS SELECT 1 AS one")
    await run("SELECT * FROM migrated")
    await run("ALTER TABLE migrated ADD COLUMN two int")
    with pytest.raises(Unavailable, match="migrated"):
        await run("SELECT * FROM migrated")
    await run("SELECT * FROM migrated")
    await database.close()
