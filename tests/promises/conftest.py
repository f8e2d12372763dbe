"""What the promises' tests break: a worker of their own."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.testing.provider import ScriptedProvider
from tests.harness.processes import KillableStage, playing_with_a_killable_worker
from tests.harness.servers import Servers


@pytest.fixture
async def killable(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> AsyncIterator[KillableStage]:
    """An API, and a worker process that is not started yet."""
    name = f"killable-{uuid.uuid4().hex[:12]}"
    async with playing_with_a_killable_worker(running_servers, provider, name, tmp_path / "worker.log") as found:
        yield found
