"""The chain: whoever appends at once, each tenant's entries are numbered without a gap, and nobody rewrites them."""

import asyncio
import uuid
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast.secrecy.erased_keys import ErasedKeys
from holdfast.services.erasure import Scope, erase
from holdfast.store import audit
from holdfast.store.audit import Entry
from holdfast.store.engine import Database, create_engine
from holdfast.store.migrate import migrate
from tests.conftest import new_tenant
from tests.harness.audit import wrong
from tests.harness.caller import Caller
from tests.harness.servers import Servers
from tests.harness.stage import Stage

CHAIN = "SELECT seq FROM audit_chain WHERE tenant_id = $1 ORDER BY seq"

FORBIDDEN = (
    "UPDATE audit SET outcome = 'fine'",
    "UPDATE audit SET person = NULL, salts = '{}'",
    "UPDATE audit_chain SET hash = ''",
    "DELETE FROM audit",
    "DELETE FROM audit_chain",
    "TRUNCATE audit",
    "TRUNCATE audit_chain",
    "ALTER TABLE audit DISABLE TRIGGER audit_chained",
    "DROP TRIGGER audit_chained ON audit",
    "SET session_replication_role = replica",
    "CREATE OR REPLACE FUNCTION holdfast_chain_audit() RETURNS trigger LANGUAGE sql AS ''",
)


class Undone(Exception):
    """Ends a transaction that is to leave nothing."""


async def test_many_appends_at_once_leave_no_gap(stage: Stage) -> None:
    """16 connections, 4 tenants, 400 transactions of one to three entries, of which every fifth is rolled back."""
    tenants = [new_tenant() for _ in range(4)]
    database = Database(create_engine(stage.database_url, pool_size=16))

    async def append(number: int) -> int:
        tenant_id = tenants[number % len(tenants)]
        entries = [Entry(kind="refusal", outcome="forbidden", person="ada") for _ in range(number % 3 + 1)]
        try:
            async with database.tenant(tenant_id) as connection:
                await audit.append(connection, tenant_id, *entries)
                if number % 5 == 0:
                    raise Undone
        except Undone:
            return 0
        return len(entries)

    try:
        appended = sum(await asyncio.gather(*(append(number) for number in range(400))))
    finally:
        await database.close()

    numbers = {tenant_id: [row["seq"] for row in await stage.rows(CHAIN, tenant_id)] for tenant_id in tenants}
    assert sum(len(seqs) for seqs in numbers.values()) == appended > 500
    assert [seqs for seqs in numbers.values() if seqs != list(range(1, len(seqs) + 1))] == []
    assert [await wrong(stage.database, tenant_id) for tenant_id in tenants] == [[], [], [], []]


async def test_an_entry_is_chained_in_the_transaction_of_what_it_records(ada: Caller, stage: Stage) -> None:
    tenant_id = ada.tenant_id
    chained = text("SELECT count(*) FROM audit_chain WHERE tenant_id = :t").bindparams(t=tenant_id)
    async with stage.database.tenant(tenant_id) as connection:
        before = await connection.scalar(chained)
        await audit.append(connection, tenant_id, Entry(kind="run", outcome="completed"))
        assert await connection.scalar(chained) == before, "not before the commit, so that no lock is held till then"
    async with stage.database.tenant(tenant_id) as connection:
        assert await connection.scalar(chained) == (before or 0) + 1


async def test_a_temporary_table_does_not_divert_the_chain(ada: Caller, stage: Stage) -> None:
    async with stage.database.tenant(ada.tenant_id) as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE audit_chain (LIKE public.audit_chain) ON COMMIT DROP"))
        await audit.append(connection, ada.tenant_id, Entry(kind="run", outcome="completed"))

    assert await wrong(stage.database, ada.tenant_id) == []


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_application_can_append_and_nothing_else(ada: Caller, stage: Stage, statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        async with stage.database.tenant(ada.tenant_id) as connection:
            await connection.execute(text(statement))


async def test_heads_of_all_tenants_are_seen_and_nothing_else(ada: Caller, stage: Stage) -> None:
    other = await stage.caller(f"{ada.tenant_id}-other")
    async with stage.database.heads() as connection:
        seen = set((await connection.scalars(text("SELECT tenant_id FROM audit_chain"))).all())
    assert {ada.tenant_id, other.tenant_id} <= seen
    for statement in ("SELECT * FROM audit", "SELECT * FROM messages"):
        with pytest.raises(ProgrammingError, match="no tenant is set"):
            async with stage.database.heads() as connection:
                await connection.execute(text(statement))
    insert = "INSERT INTO audit_chain VALUES (:t, 999999, 999999, '', '')"
    with pytest.raises(ProgrammingError, match="no tenant is set"):
        async with stage.database.heads() as connection:
            await connection.execute(text(insert), {"t": ada.tenant_id})


async def test_what_was_on_record_before_is_chained_by_the_migration(running_servers: Servers) -> None:
    """By an owner that is no superuser, and whom the policies bind; and such a one can erase."""
    name = f"migrated_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(
        make_url(running_servers.postgres_url).set(drivername="postgresql").render_as_string()
    )
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
        await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    finally:
        await admin.close()
    owner_url, app_url = running_servers.database_url(name, name), running_servers.database_url(name, f"{name}_app")
    engine = create_async_engine(owner_url)
    owner, app = Database(engine), Database(create_engine(app_url, pool_size=1))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade_to_0004)
        for tenant_id in ("one", "two"):
            async with owner.tenant(tenant_id) as connection:
                for statement in _BEFORE:
                    await connection.execute(text(statement), {"t": tenant_id})
        await migrate(owner_url, app_url)

        assert await wrong(app, "one") == []
        assert await wrong(app, "two") == []
        async with app.tenant("two") as connection:
            await audit.append(connection, "two", Entry(kind="run", outcome="completed", person="canary"))
        done = await erase(owner, Scope("two", person="canary"), ErasedKeys.of("p" * 32), "olga")
        assert done.names == 3
        assert await wrong(app, "two") == []
        async with app.tenant("two") as connection:
            shown = await connection.execute(
                text("SELECT c.seq, a.person FROM audit_chain c JOIN audit a USING (audit_id) ORDER BY c.seq")
            )
            assert [(row.seq, (row.person or "")[:7]) for row in shown] == [
                (1, "erased:"),
                (2, ""),
                (3, "erased:"),
                (4, "olga"),
            ]
    finally:
        await owner.close()
        await app.close()


_BEFORE = (
    "INSERT INTO tenants (tenant_id) VALUES (:t)",
    "INSERT INTO api_keys (tenant_id, key_id, key_hash, person) VALUES (:t, 'key', '', 'canary')",
    "INSERT INTO audit (tenant_id, kind, outcome, person, detail, cost_usd)"
    " VALUES (:t, 'budget', 'set', 'canary', 'why', 0.000012300)",
    "INSERT INTO audit (tenant_id, kind, outcome, purpose) VALUES (:t, 'model_call', 'answered', 'a purpose')",
)


def _upgrade_to_0004(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path("holdfast/store/migrations").resolve()))
    config.attributes["connection"] = connection
    command.upgrade(config, "0004")
