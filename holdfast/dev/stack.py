"""`holdfast dev`: everything on one machine, in one process tree, with its state in one folder.

PostgreSQL, Temporal, the worker and the API are children of this process. One that ends by itself is started again;
Ctrl-C stops all of them, in the order in which they need each other. After a kill -9 the next start finds what was left
running, stops it, and goes on with the same state.
"""

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import holdfast
from holdfast.config import agents_yaml
from holdfast.config.agents_yaml import AgentsFile
from holdfast.config.mcp_json import load_mcp
from holdfast.config.models_yaml import load_models
from holdfast.dev import providers, secrets
from holdfast.dev.leftovers import ProcessList
from holdfast.dev.ports import free_port, is_listening, require_free
from holdfast.dev.postgres import Postgres
from holdfast.dev.process import Child
from holdfast.dev.temporal import Temporal
from holdfast.domain.errors import ConfigurationError, Unavailable
from holdfast.domain.mcp import tool_prefix
from holdfast.domain.permissions import Role
from holdfast.services.agents import Agents
from holdfast.services.keys import Keys
from holdfast.store.engine import Database, create_engine
from holdfast.store.migrate import migrate
from holdfast.tools.functions import tools_of_modules
from holdfast.tools.http import http_request_tool
from holdfast.tools.registry import ToolRegistry

TENANT = "dev"
PERSON = "dev"

_APP_ROLE = "holdfast_app"
_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 15

#: A child that ends this often, each time within `_SOON_S` seconds of its start, is not started again.
_TOO_OFTEN = 4
_SOON_S = 30

#: Between two tries to start a child again, in seconds: what it needs may itself be about to come back.
_REST_S = 1

#: The folder that `api` and `worker` stand in; children look there first, so that they find no others of these names.
_ROOT = Path(next(iter(holdfast.__path__))).parent


@dataclass(frozen=True)
class Options:
    """What `holdfast dev` can be told. `verbose`: the logs of worker and API go to the terminal."""

    data: Path
    agents: Path
    port: int
    temporal_port: int
    temporal_ui_port: int
    verbose: bool


@dataclass(frozen=True)
class Running:
    """What runs, for the person who started it. `models`: the providers found, or none, which means the demo model."""

    url: str
    temporal_ui_url: str
    key: str
    models: list[str]
    agents: list[str]


Launch = Callable[[], Awaitable[Child]]


@dataclass
class Service:
    """A child, how to start it again, since when it runs, and how often in a row it has ended soon."""

    launch: Launch
    child: Child
    since: float
    ends: int = 0


#: For the person at the command line, and for no process that serves.
_OWNER = "HOLDFAST_DATABASE_OWNER_URL"


class DevStack:
    """Starts, watches and stops the tree. `say` is told, a line each, what happens."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._data = options.data.resolve()
        self._say = say
        self._logs = self._data / "logs"
        self._processes = ProcessList(self._data / "processes.json")
        self._services: dict[str, Service] = {}
        self._children: dict[str, Child] = {}
        self._postgres = Postgres(self._data / "postgres", self._logs / "postgres.log")
        self._temporal = Temporal(
            self._data / "temporal.sqlite",
            self._logs / "temporal.log",
            port=options.temporal_port,
            ui_port=options.temporal_ui_port,
            codec_endpoint=f"http://127.0.0.1:{options.port}/codec",
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Running]:
        """Everything runs while the block does.

        Raises:
            ConfigurationError: a port is taken, a file is wrong, or another one runs on the same folder.
            Unavailable: a part did not start.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self._prepared())
            file, models, variables = await self._configuration(stack)
            stack.callback(self._stop_all)
            await _together(
                self._start("PostgreSQL", self._start_postgres), self._start("Temporal", self._start_temporal)
            )
            url = f"http://127.0.0.1:{self._options.port}"
            kept = secrets.load_or_make(self._data, url, self._addresses())
            await self._set_up_database(kept, file)
            environment = self._environment(kept, {**variables, "HOLDFAST_MODELS": str(file.models_path.resolve())})
            await _together(
                self._start("worker", self._worker(environment)), self._start("API", self._api(environment))
            )
            agents = [spec.name for spec in file.agents]
            yield Running(url, f"http://127.0.0.1:{self._options.temporal_ui_port}", kept.key, models, agents)

    async def watch(self) -> None:
        """Start again what ends by itself, until cancelled.

        Raises:
            Unavailable: something ends again and again.
        """
        # Each for itself: a worker that starts needs the database, which may end meanwhile.
        await _together(*(self._keep(name, service) for name, service in self._services.items()))

    async def _keep(self, name: str, service: Service) -> None:
        while True:
            await asyncio.sleep(0.2)
            code = service.child.exit_code()
            if code is not None:
                self._say(f"{name} ended with code {code}; starting it again")
                await self._restart(name, service)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigurationError(
                    f"another `holdfast dev` runs on {self._data}; stop it, or choose another folder with --data"
                ) from error
            if stopped := self._processes.stop_leftovers():
                self._say(f"stopped {stopped} processes that an earlier run left behind")
            self._require_ports()
            yield

    def _lock_file(self) -> TextIO:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            return (self._data / "lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"{self._data}: can't be written to: {error.strerror}; choose another folder with --data"
            ) from error

    def _require_ports(self) -> None:
        options = self._options
        require_free(options.port, "the API", "--port")
        require_free(options.temporal_port, "Temporal", "--temporal-port")
        require_free(options.temporal_ui_port, "the Temporal UI", "--temporal-ui-port")

    async def _configuration(self, stack: AsyncExitStack) -> tuple[AgentsFile, list[str], dict[str, str]]:
        """The agents, the providers found, and the variables that the models file needs."""
        found, variables = providers.found_providers(os.environ)
        if not found:
            url = await stack.enter_async_context(providers.demo_model())
            variables = {"HOLDFAST_DEMO_MODEL_URL": url}
        # Before anything is started: a mistake in these files is the likeliest of all.
        file = agents_yaml.load_agents(self._options.agents)
        models = load_models(file.models_path, {**os.environ, **variables}, allow_demo=True)
        agents_yaml.check_aliases(file, models.aliases, models.unusable)
        for warning in _tools_warnings(file):
            self._say(f"warning: {warning}")
        return file, found, variables

    async def _start(self, name: str, launch: Launch) -> None:
        started = time.monotonic()
        self._services[name] = Service(launch, await launch(), time.monotonic())
        self._say_started(name, started)

    async def _restart(self, name: str, service: Service) -> None:
        started = time.monotonic()
        service.ends = service.ends + 1 if started - service.since < _SOON_S else 1
        while service.ends < _TOO_OFTEN:
            try:
                service.child = await service.launch()
            except Unavailable as error:
                service.ends += 1
                self._say(str(error))
                await asyncio.sleep(_REST_S)
            else:
                service.since = time.monotonic()
                self._say_started(name, started)
                return
        raise Unavailable(f"{name} ends again and again: {service.child.last_words()}")

    def _say_started(self, name: str, began: float) -> None:
        self._record()
        self._say(f"{name} started in {time.monotonic() - began:.1f} s")

    def _record(self) -> None:
        running = [*(service.child for service in self._services.values()), *self._children.values()]
        self._processes.record([child.pid for child in running])

    async def _start_postgres(self) -> Child:
        await self._postgres.start()
        return self._postgres.running

    async def _start_temporal(self) -> Child:
        await self._temporal.start()
        return self._temporal.running

    async def _set_up_database(self, kept: secrets.DevSecrets, file: AgentsFile) -> None:
        app_url = self._postgres.url(_APP_ROLE)
        await migrate(self._postgres.url(), app_url)
        database = Database(create_engine(app_url, pool_size=2))
        try:
            await Keys(database, kept.pepper).store(TENANT, PERSON, kept.key, tuple(Role))
            for spec in file.agents:
                await Agents(database).apply(TENANT, spec)
        finally:
            await database.close()

    def _addresses(self) -> dict[str, str]:
        return {
            "HOLDFAST_DATABASE_URL": self._postgres.url(_APP_ROLE),
            _OWNER: self._postgres.url(),
            "TEMPORAL_ADDRESS": self._temporal.address,
        }

    def _environment(self, kept: secrets.DevSecrets, variables: dict[str, str]) -> dict[str, str]:
        options = self._options
        python_path = os.pathsep.join(part for part in (str(_ROOT), os.getcwd(), os.environ.get("PYTHONPATH")) if part)
        return {
            **{name: value for name, value in kept.environment.items() if name != _OWNER},
            "HOLDFAST_AGENTS": str(options.agents.resolve()),
            # Whatever is set around us: `dev` is for this machine alone.
            "HOLDFAST_API_HOST": "127.0.0.1",
            "HOLDFAST_ALLOWED_HOSTS": "",
            "HOLDFAST_API_PORT": str(options.port),
            "HOLDFAST_TEMPORAL_UI_URL": f"http://127.0.0.1:{options.temporal_ui_port}",
            "HOLDFAST_WORKER_DRAIN_S": "5",
            # Whoever works here alone is nobody's flood.
            "HOLDFAST_REQUESTS_PER_MINUTE": os.environ.get("HOLDFAST_REQUESTS_PER_MINUTE") or "0",
            "HOLDFAST_STREAMS_PER_PERSON": os.environ.get("HOLDFAST_STREAMS_PER_PERSON") or "0",
            "SHOP_DATABASE": str(self._data / "shop.sqlite"),
            # A user's tools are found where the user stands.
            "PYTHONPATH": python_path,
            **variables,
        }

    def _worker(self, environment: dict[str, str]) -> Launch:
        async def launch() -> Child:
            port = free_port()
            child = self._child("worker", {**environment, "HOLDFAST_WORKER_HEALTH_PORT": str(port)})
            await child.wait_until(lambda: is_listening(port), _START_TIMEOUT_S)
            return child

        return launch

    def _api(self, environment: dict[str, str]) -> Launch:
        async def launch() -> Child:
            child = self._child("api", environment)
            await child.wait_until(lambda: is_listening(self._options.port), _START_TIMEOUT_S)
            return child

        return launch

    def _child(self, module: str, environment: dict[str, str]) -> Child:
        child = Child(
            module,
            [sys.executable, "-P", "-m", module],
            log=self._logs / f"{module}.log",
            env=environment,
            echo=self._options.verbose,
        )
        # Before it is ready, which takes a while: whatever ends us now, it is found and stopped.
        self._children[module] = child
        self._record()
        return child

    def _stop_all(self) -> None:
        # Who asks stops before who is asked; the databases last.
        for module in ("api", "worker"):
            if module in self._children:
                self._children[module].stop(_STOP_TIMEOUT_S)
        self._temporal.stop()
        self._postgres.stop()
        self._processes.record([])


def _tools_warnings(file: AgentsFile) -> list[str]:
    """What the worker will say of tools and rules, before it is started."""
    # A user's tools are found where the user stands, as they are by the worker.
    sys.path.insert(0, os.getcwd())
    tools = ToolRegistry([*tools_of_modules(file.tool_modules), http_request_tool()])
    agents_yaml.check_tools(file, tools.described)
    servers = [] if file.mcp_path is None else load_mcp(file.mcp_path, os.environ).servers
    return agents_yaml.warnings(file, tools.described, [tool_prefix(server.name) for server in servers])


async def _together(*work: Coroutine[None, None, None]) -> None:
    """Until all is done, or one fails: then nothing is begun any more by the others."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def run(options: Options, say: Callable[[str], None], greet: Callable[[Running], None]) -> None:
    """Run until cancelled.

    Raises:
        HoldfastError: something could not start, or ended again and again; the text says what.
    """
    stack = DevStack(options, say)
    async with stack.started() as running:
        greet(running)
        await stack.watch()
