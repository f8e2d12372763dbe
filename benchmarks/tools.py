"""The benchmark's tools, each 20 ms of waiting, as a fast service elsewhere would take."""

import asyncio
import os
import time
from pathlib import Path

from holdfast.domain.tools import tool

LATENCY_MS = 20

#: Names the file in which `refund` notes its starts: a line each, the time and the id of the call.
STARTS_VARIABLE = "BENCHMARK_STARTS"


@tool(effect="read")
async def lookup(key: str) -> dict[str, str]:
    """Look up a value by its key."""
    await asyncio.sleep(LATENCY_MS / 1000)
    return {"key": key, "value": f"the value of {key}"}


def refund(order_id: int, idempotency_key: str) -> dict[str, int]:
    """Refund an order, once a person has confirmed it."""
    started = time.time()
    with Path(os.environ[STARTS_VARIABLE]).open("a") as starts:
        starts.write(f"{started} {idempotency_key}\n")
    time.sleep(LATENCY_MS / 1000)
    return {"refunded": order_id}
