"""The real servers of a test session: started by the first test that needs them, shared by all, stopped at the end.

pytest-xdist runs the tests in several processes. The folder that they share is named by an environment variable, which
they inherit; whoever comes first takes the lock and starts PostgreSQL and Temporal, the others find them running.
"""

import asyncio
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from holdfast.dev.leftovers import ProcessList
from holdfast.dev.ports import free_port
from holdfast.dev.postgres import Postgres
from holdfast.dev.temporal import Temporal
from holdfast.store.migrate import migrate

#: Names the folder of the session's servers.
FOLDER_VARIABLE = "HOLDFAST_TEST_SERVERS"

APP_ROLE = "holdfast_app"

# The data of a test need not outlive the machine. (The end-to-end tests kill a server of their own, with fsync on.)
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=256MB")

_TEMPLATE = "holdfast_template"

#: Held, since they outlive the process that starts them: a forgotten child would be warned of.
_started: list[Postgres | Temporal] = []


@dataclass(frozen=True)
class Servers:
    """Where the session's servers are. The URLs lead to the superuser's own database."""

    postgres_url: str
    temporal_address: str

    def database_url(self, database: str, user: str = "postgres") -> str:
        """A SQLAlchemy URL of a database of this server."""
        return make_url(self.postgres_url).set(database=database, username=user).render_as_string()

    async def prepare(self) -> None:
        """Make the template of the databases to come."""
        await _execute(self.postgres_url, f"CREATE DATABASE {_TEMPLATE}")
        await migrate(self.database_url(_TEMPLATE), self.database_url(_TEMPLATE, APP_ROLE))

    async def create_database(self, name: str) -> None:
        """Make a migrated database, as a copy of the template."""
        await _execute(self.postgres_url, f'CREATE DATABASE "{name}" TEMPLATE {_TEMPLATE}')


def new_folder() -> Path:
    """A folder for the servers of this session, which its other processes will find by the environment."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-tests-"))
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def stop(folder: Path) -> None:
    """Stop what was started in a folder, and remove it."""
    _processes(folder).stop_leftovers()
    shutil.rmtree(folder, ignore_errors=True)


async def running() -> Servers:
    """The session's servers, started if nobody has yet."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    found = folder / "servers.json"
    async with _locked(folder):
        if not found.exists():
            found.write_text(json.dumps(asdict(await _start(folder))))
    return Servers(**json.loads(found.read_text()))


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def _start(folder: Path) -> Servers:
    postgres = Postgres(folder / "postgres", folder / "postgres.log", settings=_FAST, max_connections=400)
    temporal = Temporal(folder / "temporal.sqlite", folder / "temporal.log", port=free_port(), ui_port=None)
    _started.extend((postgres, temporal))
    await asyncio.gather(postgres.start(), temporal.start())
    _processes(folder).record([postgres.running.pid, temporal.running.pid])
    servers = Servers(postgres.url(), temporal.address)
    await servers.prepare()
    return servers


def _processes(folder: Path) -> ProcessList:
    return ProcessList(folder / "processes.json")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
