"""A person at a terminal: a command on a pseudo-terminal, typed into and read."""

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.harness.caller import Caller
from tests.harness.conditions import until

_HOLDFAST = str(Path(sys.executable).parent / "holdfast")

#: How long to wait for what is to be shown, in seconds: less than a test may take, so that it says what was shown.
_SHOWN_WITHIN_S = 60

#: What moves the cursor, colours and clears.
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])")


class Terminal:
    """One command. `seen` is all that it has shown so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self._process = process
        self._master = master
        self._shown = b""
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def seen(self) -> str:
        return _ESCAPES.sub("", self._shown.decode(errors="replace"))

    async def shows(self, text: str, times: int = 1) -> None:
        """Wait until a text has been shown so often."""
        try:
            async with asyncio.timeout(_SHOWN_WITHIN_S):
                await until(lambda: self.seen.count(text) >= times or self._fail_at_the_end(text))
        except TimeoutError:
            raise AssertionError(f"{text!r} was not shown: {self.seen}") from None

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, f"{line}\n".encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        """The exit code."""
        code = await asyncio.to_thread(self._process.wait)
        self._read()
        return code

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> None:
        # EIO: the other end is closed.
        with suppress(OSError):
            self._shown += os.read(self._master, 65536)

    def _fail_at_the_end(self, text: str) -> bool:
        assert self._process.poll() is None, f"{text!r} was never shown: {self.seen}"
        return False


@contextmanager
def at_a_terminal(caller: Caller, *arguments: str, url: str | None = None) -> Iterator[Terminal]:
    """A command of `holdfast` at a terminal, with a caller's key."""
    master, slave = pty.openpty()
    variables = {"HOLDFAST_URL": url or str(caller.http.base_url), "HOLDFAST_API_KEY": caller.key, "TERM": "xterm"}
    process = subprocess.Popen(
        [_HOLDFAST, *arguments],
        env={**os.environ, **variables, "COLUMNS": "200", "LINES": "50"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # Tests that a script runs in the background ignore Ctrl-C, and what they start would, too.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        terminal.close()
