"""How many requests a caller may make in a minute, and how many streams they may have open, of this process; and how
often somebody may come with a wrong key.

A bucket for each caller that fills evenly and holds a minute's worth (the algorithm is GCRA: one number a caller). The
libraries for this keep their memory in order with a thread that they start a hundred times a second, and bound it by
nothing; here the caller who was quiet for longest is forgotten when there are too many.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import IPv6Address, ip_address

from holdfast.domain.errors import TooManyRequests
from holdfast.domain.permissions import Caller

#: How many callers are remembered at once, and how many addresses.
REMEMBERED = 10_000

#: How many wrong keys may come from an address in a minute: for a mistake, and not for trying. Right keys are not held
#: up by it: many people may share an address.
FAILURES_A_MINUTE = 60

_MINUTE_S = 60.0

#: When to try again to open a stream: nobody knows when another one ends.
_STREAM_AGAIN = timedelta(seconds=5)


class Buckets:
    """A bucket for each of many; full at first, and for whoever is not known."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = _MINUTE_S / a_minute
        self._clock = clock
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, whose: Hashable) -> timedelta | None:
        """Take one out. None: there was one; otherwise nothing is taken, and there is one after this time."""
        now = self._clock()
        full_at = max(self._full_at.get(whose, now), now) + self._interval_s
        if full_at - now > _MINUTE_S:
            return timedelta(seconds=full_at - now - _MINUTE_S)
        self._full_at[whose] = full_at
        self._full_at.move_to_end(whose)
        if len(self._full_at) > REMEMBERED:
            self._full_at.popitem(last=False)
        return None


class RequestLimits:
    """The limits of one process. `a_minute` 0: there are none."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._callers = Buckets(a_minute) if a_minute else None
        self._strangers = Buckets(FAILURES_A_MINUTE) if a_minute else None

    def admit(self, caller: Caller) -> None:
        """Count a request of a caller who is known.

        Raises:
            TooManyRequests: it is one too many.
        """
        if self._callers is not None:
            _take(self._callers, (caller.tenant_id, caller.person), f"{self._a_minute} requests a minute are allowed.")

    def count_failure(self, address: str) -> None:
        """Count a request without a key that is known.

        Raises:
            TooManyRequests: it is one too many.
        """
        if self._strangers is not None:
            _take(self._strangers, _network(address), "Too many requests came from here without a key that is known.")


class StreamLimit:
    """How many streams each person has open at a time, of one process. `most` 0: as many as they like."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[Hashable] = Counter()

    @contextmanager
    def open(self, caller: Caller) -> Iterator[None]:
        """Count a stream while the block runs.

        Raises:
            TooManyRequests: it is one too many.
        """
        whose = (caller.tenant_id, caller.person)
        if self._most and self._open[whose] >= self._most:
            raise TooManyRequests(f"{self._most} streams may be open at a time; close one.", _STREAM_AGAIN)
        self._open[whose] += 1
        try:
            yield
        finally:
            self._open[whose] -= 1
            if not self._open[whose]:
                del self._open[whose]


def _take(buckets: Buckets, whose: Hashable, detail: str) -> None:
    wait = buckets.take(whose)
    if wait is not None:
        raise TooManyRequests(detail, wait)


def _network(address: str) -> str:
    """An IPv6 host has more addresses than can be counted, all in one /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(int(parsed) >> 64) if isinstance(parsed, IPv6Address) else address
