"""What was found a moment ago, so that the next request need not ask again."""

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """Remembers up to `most` values, each for `seconds` at most.

    Between the look and the `put` of what was found, it may have changed and been forgotten: `put` takes the `mark` of
    before the look, and keeps nothing if anything was forgotten since.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._found: dict[Key, tuple[float, Value]] = {}
        self._forgotten = 0

    @property
    def mark(self) -> int:
        """Where this stands: another after each `forget`."""
        return self._forgotten

    def get(self, key: Key) -> Value | None:
        """What was found, if it is still remembered."""
        until, value = self._found.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: Key, value: Value, mark: int, at_most_s: float | None = None) -> None:
        """Remember what was looked for from `mark` on; for less than usual, if `at_most_s` says so."""
        if mark != self._forgotten:
            return
        if len(self._found) >= self._most:
            self._found.clear()
        seconds = self._seconds if at_most_s is None else min(self._seconds, at_most_s)
        self._found[key] = (time.monotonic() + seconds, value)

    def forget(self, is_to_go: Callable[[Value], bool]) -> None:
        """Forget the values that are to go."""
        self._forgotten += 1
        for key in [key for key, (_, value) in self._found.items() if is_to_go(value)]:
            del self._found[key]
