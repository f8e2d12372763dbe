"""Who plays in the chaos: each part a process of its own, to be killed, frozen, deployed and started again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from holdfast.config import agents_yaml
from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.postgres import Postgres
from holdfast.dev.process import Child
from holdfast.dev.temporal import Temporal
from holdfast.domain.permissions import Role
from holdfast.secrecy.keyring import new_key
from holdfast.services.agents import Agents
from holdfast.services.audit_log import AuditLog
from holdfast.services.keys import Keys
from holdfast.store.engine import Database, create_engine
from holdfast.store.migrate import migrate
from tests.chaos.tools import RECORDER_VARIABLE
from tests.harness.audit import wrong

_ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).with_name("agents.yaml")
TENANT = "chaos"
_APP_ROLE = "holdfast_app"
_PEPPER = "pepper-of-the-chaos-" + "0" * 32
_PAYLOAD_KEYS = new_key("chaos")
_START_TIMEOUT_S = 120


class Program:
    """A Python process that listens on a port."""

    def __init__(self, name: str, command: list[str], port: int, environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.port = port
        self._command = command
        self._environment = environment
        self._log = folder / f"{name}.log"
        self._child: Child | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", *self._command]
        self._child = Child(self.name, command, log=self._log, env=self._environment, cwd=_ROOT)
        await self._child.wait_until(lambda: is_listening(self.port), _START_TIMEOUT_S)

    @property
    def child(self) -> Child:
        """Its process, once it was started."""
        assert self._child is not None
        return self._child

    def kill(self) -> None:
        """kill -9."""
        if self._child is not None:
            self._child.kill()

    async def deploy(self) -> None:
        """SIGTERM, as a deployment does it, and start again."""
        await asyncio.to_thread(self.child.stop, 60)
        await self.start()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Not dead, and not answering, while the block runs."""
        os.kill(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.child.pid, signal.SIGCONT)


class Cast:
    """Every part, started by `playing`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres", folder / "postgres.log")
        self.temporal = Temporal(folder / "temporal.sqlite", folder / "temporal.log", port=free_port(), ui_port=None)
        recorder_port, provider_port = free_port(), free_port()
        seeded = ["--seed", str(seed)]
        self.effects_log = folder / "effects.jsonl"
        self.recorder = Program(
            "recorder",
            ["tests.chaos.recorder", "--port", str(recorder_port), "--log", str(self.effects_log), *seeded],
            recorder_port,
            {},
            folder,
        )
        self.provider = Program(
            "provider", ["tests.chaos.provider", "--port", str(provider_port), *seeded], provider_port, {}, folder
        )
        self.apis = [self._api(number) for number in range(2)]
        self.workers = [self._worker(number) for number in range(2)]
        self.keys: dict[str, str] = {}

    @property
    def recorder_url(self) -> str:
        return f"http://127.0.0.1:{self.recorder.port}"

    @property
    def urls(self) -> list[str]:
        """Of the APIs."""
        return [f"http://127.0.0.1:{api.port}" for api in self.apis]

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Rows as the superuser sees them."""
        url = make_url(self.postgres.url()).set(drivername="postgresql").render_as_string()
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    async def start(self) -> None:
        """Start all of them, with a tenant, its agents and two people."""
        os.environ["TEMPORAL_ADDRESS"] = self.temporal.address
        os.environ[RECORDER_VARIABLE] = self.recorder_url
        os.environ["HOLDFAST_CHAOS_PROVIDER"] = f"http://127.0.0.1:{self.provider.port}/v1"
        await asyncio.gather(self.postgres.start(), self.temporal.start(), self.recorder.start(), self.provider.start())
        await migrate(self.postgres.url(), self.postgres.url(_APP_ROLE))
        database = Database(create_engine(self.postgres.url(_APP_ROLE), pool_size=2))
        try:
            for person in ("ada", "bob", "eve"):
                self.keys[person] = (await Keys(database, _PEPPER).create(TENANT, person, tuple(Role))).secret
            for spec in agents_yaml.load_agents(AGENTS).agents:
                await Agents(database).apply(TENANT, spec)
        finally:
            await database.close()
        await asyncio.gather(*(part.start() for part in (*self.apis, *self.workers)))

    async def verify(self) -> list[str]:
        """What is wrong with the audit log of every tenant."""
        database = Database(create_engine(self.postgres.url(_APP_ROLE), pool_size=1))
        try:
            heads = await AuditLog(database).heads()
            return [one for head in heads for one in await wrong(database, head.tenant_id)]
        finally:
            await database.close()

    def stop(self) -> None:
        """End all of them."""
        for part in (*self.workers, *self.apis, self.provider, self.recorder):
            part.kill()
        self.temporal.stop()
        self.postgres.stop()

    def _api(self, number: int) -> Program:
        port = free_port()
        environment = {**self._common(), "HOLDFAST_KEY_PEPPER": _PEPPER, "HOLDFAST_API_PORT": str(port)}
        environment["HOLDFAST_REQUESTS_PER_MINUTE"] = "0"
        return Program(f"api-{number}", ["api"], port, environment, self.folder)

    def _worker(self, number: int) -> Program:
        port = free_port()
        environment = {
            **self._common(),
            "HOLDFAST_AGENTS": str(AGENTS),
            "HOLDFAST_WORKER_HEALTH_PORT": str(port),
            "HOLDFAST_WORKER_DRAIN_S": "5",
        }
        return Program(f"worker-{number}", ["worker"], port, environment, self.folder)

    def _common(self) -> dict[str, str]:
        return {
            "HOLDFAST_ENVIRONMENT": "dev",
            "HOLDFAST_DATABASE_URL": self.postgres.url(_APP_ROLE),
            "HOLDFAST_TASK_QUEUE": "chaos",
            "HOLDFAST_PAYLOAD_KEYS": _PAYLOAD_KEYS,
            "HOLDFAST_LOG_LEVEL": "WARNING",
        }


@asynccontextmanager
async def playing(folder: Path, seed: int) -> AsyncIterator[Cast]:
    """The whole cast, while the block runs."""
    cast = Cast(folder, seed)
    try:
        await cast.start()
        yield cast
    finally:
        cast.stop()
