"""Tools for the tests. Those that change something leave a line in a file for each time they ran, which tests count."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from holdfast.domain.tools import tool

#: Names the file of effects.
EFFECTS_VARIABLE = "HOLDFAST_TEST_EFFECTS"


def _leave(tool_name: str, marker: str, key: str | None = None) -> None:
    line = json.dumps({"tool": tool_name, "marker": marker, "key": key}) + "\n"
    descriptor = os.open(os.environ[EFFECTS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def effects(tool_name: str, marker: str) -> list[dict[str, Any]]:
    """The times that a tool ran for a marker."""
    path = Path(os.environ[EFFECTS_VARIABLE])
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if (line["tool"], line["marker"]) == (tool_name, marker)]


@tool(effect="read")
def look_up(marker: str) -> dict[str, str]:
    """Look something up."""
    return {"found": marker}


def send(marker: str) -> str:
    """Send something: can't be taken back, can't be repeated."""
    _leave("send", marker)
    return f"sent {marker}"


def delete(marker: str) -> str:
    """Delete something: the policy of every agent forbids it, or names it not at all."""
    _leave("delete", marker)
    return f"deleted {marker}"


def pay(marker: str, amount: int, idempotency_key: str) -> dict[str, Any]:
    """Pay: harmless to repeat under the same key."""
    _leave("pay", marker, idempotency_key)
    return {"paid": amount}


def send_slowly(marker: str) -> str:
    """Leave the effect at once, then hang for as long as the file `marker` is not there."""
    _leave("send_slowly", marker)
    _wait_for(marker)
    return f"sent {marker}"


def pay_slowly(marker: str, idempotency_key: str) -> str:
    """As `send_slowly`, but harmless to repeat under the same key."""
    _leave("pay_slowly", marker, idempotency_key)
    _wait_for(marker)
    return f"paid {marker}"


@tool(effect="read", timeout_s=0.3)
def hang_reading(marker: str) -> str:
    """Hang beyond the timeout, changing nothing."""
    _wait_for(marker)
    return "never seen"


@tool(timeout_s=0.3)
def hang_sending(marker: str) -> str:
    """Hang beyond the timeout, after the effect."""
    _leave("hang_sending", marker)
    _wait_for(marker)
    return "never seen"


@tool(timeout_s=0.3, attempts=2)
def hang_paying(marker: str, idempotency_key: str) -> str:
    """Hang beyond the timeout, after an effect that one key makes harmless to repeat; not the second time."""
    _leave("hang_paying", marker, idempotency_key)
    if len(effects("hang_paying", marker)) < 2:
        _wait_for(marker)
    return f"paid {marker}"


def find_effect(marker: str) -> str | bool:
    """The probe of `send_and_tell`: whether its effect is there."""
    return f"found {marker}" if effects("send_and_tell", marker) else False


@tool(timeout_s=1, probe=find_effect)
def send_and_tell(marker: str) -> str:
    """As `send_slowly`, but what became of it can be found out. Hangs before the effect if `marker` says so."""
    _leave("send_and_tell_began", marker)
    if marker.endswith("-before"):
        _wait_for(marker)
    _leave("send_and_tell", marker)
    _wait_for(marker)
    return f"sent {marker}"


def pay_if_much(marker: str, amount: int, currency: str = "USD") -> dict[str, Any]:
    """Pay, which the policy has confirmed only where it is much."""
    _leave("pay_if_much", marker)
    return {"paid": amount, "currency": currency}


@tool(confirm="always")
def refund(marker: str) -> str:
    """Refund, which its author wants confirmed."""
    _leave("refund", marker)
    return "refunded"


def fail(marker: str) -> str:
    """Raise."""
    raise RuntimeError(f"no luck with {marker}")


@tool(effect="read")
def return_something_odd(marker: str) -> object:
    """Return what no JSON can hold."""
    return {"lock": threading.Lock(), "marker": marker}


@tool(effect="read")
def return_much(marker: str) -> str:
    """Return ten megabytes."""
    return marker[:1] * 10_000_000


def _wait_for(marker: str) -> None:
    while not Path(marker).exists():
        threading.Event().wait(0.05)
