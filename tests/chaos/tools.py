"""Tools whose effects happen elsewhere, at the recorder: of every kind that the ledger knows."""

import os
from typing import Any

import httpx

from holdfast.domain.tools import tool

#: Where the recorder is.
RECORDER_VARIABLE = "HOLDFAST_CHAOS_RECORDER"


def _do(tool_name: str, marker: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    body = {"tool": tool_name, "marker": marker, "key": key, **more}
    response = httpx.post(f"{os.environ[RECORDER_VARIABLE]}/do", json=body, timeout=20)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


@tool(effect="read")
def look(marker: str) -> dict[str, Any]:
    """Change nothing."""
    return _do("look", marker)


def charge(marker: str) -> dict[str, Any]:
    """Can't be repeated."""
    return _do("charge", marker)


def transfer(marker: str, idempotency_key: str) -> dict[str, Any]:
    """One key makes it harmless to repeat."""
    return _do("transfer", marker, idempotency_key)


def grant(marker: str, amount: int) -> dict[str, Any]:
    """Can't be repeated, and a person confirms it."""
    return _do("grant", marker, amount=amount)


def pay_out(marker: str, amount: int, idempotency_key: str) -> dict[str, Any]:
    """One key makes it harmless to repeat, and a person confirms it."""
    return _do("pay_out", marker, idempotency_key, amount=amount)


def _was_shipped(marker: str) -> dict[str, bool] | bool:
    answer = httpx.get(f"{os.environ[RECORDER_VARIABLE]}/done/{marker}", timeout=20).raise_for_status().json()
    return {"found": True} if answer["done"] else False


@tool(probe=_was_shipped, timeout_s=3)
def ship(marker: str) -> dict[str, Any]:
    """Can't be repeated, but what became of it can be found out."""
    return _do("ship", marker)
