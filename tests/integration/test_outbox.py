"""What is still to be told to Temporal: claimed by one relay at a time, and never lost with it."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from holdfast.store import outbox
from holdfast.store.engine import Database, create_engine
from tests.harness.servers import APP_ROLE, Servers

_ADD = text(
    "INSERT INTO outbox (tenant_id, kind, workflow_id, run_id, due_at)"
    " VALUES (:tenant_id, 'start', 'w', :run_id, clock_timestamp() - interval '1 second')"
)


@pytest.fixture
async def quiet_database(running_servers: Servers) -> AsyncIterator[Database]:
    """A database at which no relay works."""
    name = f"outbox-{uuid.uuid4().hex[:12]}"
    await running_servers.create_database(name)
    database = Database(create_engine(running_servers.database_url(name, APP_ROLE), pool_size=4))
    yield database
    await database.close()


async def add(database: Database, tenant_id: str, run_id: str) -> None:
    """A word that is due."""
    async with database.tenant(tenant_id) as connection:
        await connection.execute(_ADD, {"tenant_id": tenant_id, "run_id": run_id})


async def test_two_relays_at_once_never_get_the_same_word(quiet_database: Database) -> None:
    for number in range(10):
        await add(quiet_database, f"tenant-{number % 3}", f"run-{number}")
    async with quiet_database.relay() as first, quiet_database.relay() as second:
        mine = await outbox.claim(first, timedelta(minutes=1), limit=6)
        others = await outbox.claim(second, timedelta(minutes=1), limit=6)
    async with quiet_database.relay() as connection:
        left = await outbox.claim(connection, timedelta(minutes=1), limit=6)

    assert sorted(word.run_id for word in (*mine, *others)) == [f"run-{number}" for number in range(10)]
    assert left == []


async def test_a_claim_that_died_with_its_process_runs_out(quiet_database: Database) -> None:
    await add(quiet_database, "tenant", "run")
    async with quiet_database.relay() as connection:
        claimed = await outbox.claim(connection, timedelta(0), limit=6)
    async with quiet_database.relay() as connection:
        again = await outbox.claim(connection, timedelta(0), limit=6)
        await outbox.remove(connection, again)
    async with quiet_database.relay() as connection:
        left = await outbox.claim(connection, timedelta(0), limit=6)

    assert claimed == again
    assert len(again) == 1
    assert left == []
