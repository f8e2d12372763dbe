"""A child process whose output goes to a file, and that is told to stop before it is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.domain.errors import Unavailable

#: How often a condition on a starting process is looked at, in seconds.
_POLL_S = 0.05


class Child:
    """One process of the tree, with a name for messages and a log file that outlives it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        echo: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        output = sys.stderr.fileno() if echo else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # A session of its own: Ctrl-C reaches the parent alone, which stops the children in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                user=user,
                start_new_session=True,
            )
        finally:
            if not echo:
                os.close(output)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """The code it ended with; None while it runs."""
        return self._process.poll()

    async def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a condition.

        Raises:
            Unavailable: the process ended, or the time ran out, and it was killed; the text quotes its log's last line.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await asyncio.to_thread(is_ready):
            code = self.exit_code()
            if code is not None:
                raise Unavailable(f"{self.name} ended with code {code} while starting: {self.last_words()}")
            if asyncio.get_running_loop().time() > deadline:
                # Whoever gives up on it starts another one, and must not have two.
                self.kill()
                raise Unavailable(f"{self.name} was not ready after {timeout_s:.0f} s: {self.last_words()}")
            await asyncio.sleep(_POLL_S)

    def last_words(self) -> str:
        """The last line that it logged, and where the rest is."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'nothing was logged'} (log: {self.log})"

    def stop(self, timeout_s: float) -> None:
        """Ask it to stop; kill it if it has not after `timeout_s` seconds."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, with whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
