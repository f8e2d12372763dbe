"""Fixtures for every test. What is real and slow to start is started once, when the first test asks for it."""

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from api import pool
from holdfast.config.settings import PoolSettings
from holdfast.dev.serving import serving
from holdfast.testing.provider import ScriptedProvider
from tests.agents.tools import EFFECTS_VARIABLE
from tests.harness import servers
from tests.harness.caller import Caller
from tests.harness.stage import AGENTS, PEPPER, Stage, playing

_tenant_numbers = itertools.count(1)
_folder: list[Path] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-histories", action="store_true", help="record what tests/replay replays")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` means: half as many again as there are cores, since tests wait a lot."""
    return round(1.5 * (os.cpu_count() or 1))


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _folder.append(servers.new_folder())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        servers.stop(_folder.pop())


@pytest.fixture(scope="session")
async def running_servers() -> servers.Servers:
    """PostgreSQL and Temporal."""
    return await servers.running()


@pytest.fixture(scope="session")
def session_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    """The provider behind both aliases; tests take `provider`, which forgets what the test before it asked for."""
    with ScriptedProvider() as provider:
        os.environ["HOLDFAST_TEST_PROVIDER"] = provider.url
        os.environ[EFFECTS_VARIABLE] = str(tmp_path_factory.mktemp("effects") / "effects")
        yield provider


@pytest.fixture(scope="session")
async def session_stage(running_servers: servers.Servers, session_provider: ScriptedProvider) -> AsyncIterator[Stage]:
    """The whole application, for every test of this process."""
    async with playing(running_servers, session_provider, f"tests-{_process()}") as stage:
        yield stage


@pytest.fixture
def provider(session_provider: ScriptedProvider) -> ScriptedProvider:
    """The scripted provider, as new."""
    session_provider.reset()
    return session_provider


@pytest.fixture
async def stage(session_stage: Stage, provider: ScriptedProvider) -> AsyncIterator[Stage]:
    """The whole application, with a provider as new."""
    yield session_stage
    await session_stage.dismiss_callers()


@pytest.fixture(scope="session")
async def pool_url(session_stage: Stage) -> AsyncIterator[str]:
    """The pool as a service of its own, beside the API of the stage."""
    settings = PoolSettings(
        environment="dev",
        database_url=SecretStr(session_stage.database_url),
        key_pepper=SecretStr(PEPPER),
        models=AGENTS.with_name("models.yaml"),
    )
    async with pool.wire(settings) as services, serving(pool.create_app(services)) as url:
        yield url


@pytest.fixture
async def ada(stage: Stage) -> Caller:
    """A person of a tenant that only this test uses."""
    return await stage.caller(new_tenant())


def new_tenant() -> str:
    """The name of a tenant that nobody else in this session uses."""
    return f"tenant-{_process()}-{next(_tenant_numbers)}"


def _process() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")
