"""Reading along in a run, for the command line: an interruption is waited out, and nothing is read twice.

It goes on in a thread of its own, so that a person can be asked something at the same time.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from holdfast.cli.connection import Api, Refused
from holdfast.domain.errors import HoldfastError, Unavailable
from holdfast.domain.events import TERMINAL

#: How long to rest before connecting again, in seconds: at first, and at most.
_REST_S, _LONGEST_REST_S = 0.25, 5.0

#: For how long the API may be away, in seconds.
_GIVE_UP_S = 120.0

_TOO_MANY_REQUESTS, _OUR_FAULT = 429, 500


@dataclass(frozen=True)
class Told:
    """An event of a run."""

    seq: int
    type: str
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        return self.type in TERMINAL


@dataclass(frozen=True)
class Interrupted:
    """The API is away, or has ended the stream in the middle; it is tried again."""


@dataclass(frozen=True)
class Connected:
    """The API answers again."""


News = Told | Interrupted | Connected


class Following:
    """The news of a run, as they come."""

    def __init__(self, api: Api, run_id: str) -> None:
        self._news: SimpleQueue[News | HoldfastError] = SimpleQueue()
        self._last = 0
        # It ends with the program, if it is left in the middle.
        threading.Thread(target=self._read, args=(api, run_id), name="following", daemon=True).start()

    def next(self, timeout_s: float | None = None) -> News | None:
        """What is new; None: nothing for so long.

        Raises:
            Refused: the API tells this run to nobody like us.
            Unavailable: it was away for too long.
        """
        try:
            found = self._news.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(found, HoldfastError):
            raise found
        return found

    def _read(self, api: Api, run_id: str) -> None:
        try:
            self._read_to_the_end(api, f"/v1/runs/{run_id}/events")
        except HoldfastError as error:
            self._news.put(error)

    def _read_to_the_end(self, api: Api, path: str) -> None:
        absence = _Absence()

        def connected() -> None:
            if absence.end():
                self._news.put(Connected())

        while not self._is_read(api, path, connected):
            if absence.begin():
                self._news.put(Interrupted())
            absence.rest()

    def _is_read(self, api: Api, path: str, on_open: Callable[[], None]) -> bool:
        """Read as far as one connection goes; answers with whether that was to the end."""
        try:
            for seq, kind, data in api.events(path, on_open=on_open, after=self._last):
                told, self._last = Told(seq, kind, data), seq
                self._news.put(told)
                if told.is_last:
                    return True
        except Unavailable:
            return False
        except Refused as refused:
            if refused.status < _OUR_FAULT and refused.status != _TOO_MANY_REQUESTS:
                raise
        return False


class _Absence:
    """Since when the API is away, and how long to rest before it is tried again."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._rest_s = _REST_S

    def begin(self) -> bool:
        """The API is away. False: it was so before."""
        is_new = self._since is None
        if is_new:
            self._since, self._rest_s = time.monotonic(), _REST_S
        return is_new

    def end(self) -> bool:
        """The API is there. False: it was so before."""
        was_away, self._since = self._since is not None, None
        return was_away

    def rest(self) -> None:
        """Wait a little; longer each time.

        Raises:
            Unavailable: it has been long enough.
        """
        assert self._since is not None
        if time.monotonic() - self._since > _GIVE_UP_S:
            raise Unavailable(f"The API has been away for {_GIVE_UP_S:.0f} seconds.")
        time.sleep(self._rest_s)
        self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
