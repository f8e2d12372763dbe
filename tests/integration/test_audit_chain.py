"""The chain: whoever appends at once, each tenant's entries are numbered without a gap, and nobody rewrites them."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from holdfast.store import audit
from holdfast.store.audit import Entry
from holdfast.store.engine import Database, create_engine
from tests.conftest import new_tenant
from tests.harness.audit import wrong
from tests.harness.caller import Caller
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
