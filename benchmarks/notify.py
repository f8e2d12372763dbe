"""What it costs to notify: writes of a piece of text each, by more and more connections, with and without NOTIFY.

PostgreSQL has transactions that notify commit one after the other, each with its own sync of the disk; unless they
write nothing, and so wait for no disk. `pgbench` writes, which costs next to no CPU beside the server's; meanwhile one
connection listens, as an API process does, and says how late it hears.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from benchmarks.load import WrongResult
from holdfast.dev.postgres import PROGRAMS

_SECONDS = 4

_TABLES = """
CREATE TABLE notify_runs (run_id int PRIMARY KEY, last_seq int NOT NULL);
CREATE UNLOGGED TABLE notify_deltas (run_id int, seq int, text text, PRIMARY KEY (run_id, seq));
INSERT INTO notify_runs SELECT n, 0 FROM generate_series(0, 1000) n;
"""

# As `holdfast.store.event_log` writes a piece of text: each connection one of its own run.
_WRITE = """
WITH counted AS (UPDATE notify_runs SET last_seq = last_seq + 1 WHERE run_id = :client_id RETURNING run_id, last_seq),
written AS (INSERT INTO notify_deltas SELECT run_id, last_seq, 'a piece of text' FROM counted)
SELECT {telling} FROM counted;
"""
_TELL = "pg_notify('notify_bench', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text)"

_SILENT = _WRITE.format(telling="last_seq")
_IN_IT = _WRITE.format(telling=_TELL)
_AFTER_IT = f"{_SILENT}\nSELECT {_TELL};\n"


@dataclass(frozen=True)
class Written:
    """Commits of pieces a second, and how late the listener heard of them (nothing, if nobody said anything)."""

    a_second: float
    late_ms: list[float]


@dataclass(frozen=True)
class Notified:
    """So many connections that write as fast as they can: without NOTIFY, with it in the transaction, and after it."""

    writers: int
    silent: Written
    in_it: Written
    after_it: Written


async def measure(folder: Path, database_url: str, writers: list[int]) -> list[Notified]:
    """Write without and with NOTIFY, by each number of connections.

    Raises:
        WrongResult: a notification was lost, or pgbench failed.
    """
    url = make_url(database_url)
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string())
    try:
        await connection.execute(_TABLES)
        return [await _measure(folder, str(url.query["host"]), connection, number) for number in writers]
    finally:
        await connection.close()


async def _measure(folder: Path, host: str, connection: asyncpg.Connection, writers: int) -> Notified:
    async def write(script: str) -> Written:
        async with _hearing(connection) as late_ms:
            a_second, commits = await _write(folder, host, script, writers)
            # What is still on its way.
            await asyncio.sleep(1)
        if script != _SILENT and len(late_ms) != commits:
            raise WrongResult(f"{commits} transactions notified, and {len(late_ms)} were heard")
        return Written(a_second, late_ms)

    return Notified(writers, await write(_SILENT), await write(_IN_IT), await write(_AFTER_IT))


@asynccontextmanager
async def _hearing(connection: asyncpg.Connection) -> AsyncIterator[list[float]]:
    late_ms: list[float] = []

    def hear(_connection: object, _pid: int, _channel: str, sent_us: object) -> None:
        late_ms.append(time.time() * 1000 - int(str(sent_us)) / 1000)

    await connection.add_listener("notify_bench", hear)
    try:
        yield late_ms
    finally:
        await connection.remove_listener("notify_bench", hear)


async def _write(folder: Path, host: str, script: str, writers: int) -> tuple[float, int]:
    """Commits a second, and how many there were."""
    file = folder / "write.sql"
    file.write_text(script)
    options = ["-n", "-h", host, "-U", "postgres", "-c", str(writers), "-T", str(_SECONDS), "-f", str(file)]
    pgbench = await asyncio.create_subprocess_exec(
        str(PROGRAMS / "pgbench"), *options, "postgres", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = (part.decode() for part in await pgbench.communicate())
    rate = re.search(r"tps = ([\d.]+)", said)
    commits = re.search(r"actually processed: (\d+)", said)
    if pgbench.returncode or rate is None or commits is None:
        raise WrongResult(f"pgbench: {complained.strip()}")
    return float(rate[1]), int(commits[1])
