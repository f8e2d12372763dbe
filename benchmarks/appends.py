"""`python -m benchmarks.appends`: what the hash chain of the audit log costs, beside the log without it.

One entry a transaction, on a real PostgreSQL with fsync on, started for this in a temporary folder: with the trigger
that chains and without it, in turns, the best of each, since what else runs on the machine only slows. It says how much
one tenant can record in a second, and how much many tenants can.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from holdfast.dev.postgres import Postgres
from holdfast.store import audit
from holdfast.store.audit import Entry
from holdfast.store.engine import Database, create_engine
from holdfast.store.migrate import migrate

_APP_ROLE = "holdfast_app"

_ROUNDS = 3


@dataclass(frozen=True)
class Load:
    """So many appends over so many tenants, so many at a time."""

    tenants: int
    at_once: int
    appends: int


LOADS = (Load(1, 1, 300), Load(1, 20, 1000), Load(20, 20, 1000))


async def measure(folder: Path, loads: Sequence[Load]) -> dict[str, list[float]]:
    """Appends a second for each load, with the chain (`ENABLE`) and without (`DISABLE`)."""
    postgres = Postgres(folder / "postgres", folder / "postgres.log")
    await postgres.start()
    try:
        await migrate(postgres.url(), postgres.url(_APP_ROLE))
        database = Database(create_engine(postgres.url(_APP_ROLE), pool_size=20))
        try:
            measured: dict[str, list[list[float]]] = {"ENABLE": [], "DISABLE": []}
            for _ in range(_ROUNDS):
                for switch, rounds in measured.items():
                    await _switch_the_chain(postgres, switch)
                    rounds.append([await _a_second(database, load) for load in loads])
            return {switch: [max(one) for one in zip(*rounds, strict=True)] for switch, rounds in measured.items()}
        finally:
            await database.close()
    finally:
        postgres.stop()


async def _a_second(database: Database, load: Load) -> float:
    numbers = iter(range(load.appends))

    async def append() -> None:
        for number in numbers:
            tenant_id = f"tenant-{number % load.tenants}"
            entry = Entry(kind="refusal", outcome="forbidden", person="ada", detail="approve")
            async with database.tenant(tenant_id) as connection:
                await audit.append(connection, tenant_id, entry)

    began = time.monotonic()
    await asyncio.gather(*(append() for _ in range(load.at_once)))
    return load.appends / (time.monotonic() - began)


async def _switch_the_chain(postgres: Postgres, switch: str) -> None:
    url = make_url(postgres.url()).set(drivername="postgresql").render_as_string()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"ALTER TABLE audit {switch} TRIGGER audit_chained")
    finally:
        await connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        measured = asyncio.run(measure(Path(folder), LOADS))
    for load, chained, without in zip(LOADS, measured["ENABLE"], measured["DISABLE"], strict=True):
        print(
            f"{load.tenants} tenants, {load.at_once} at once: {chained:.0f} a second, {without:.0f} without the chain"
        )


if __name__ == "__main__":
    main()
