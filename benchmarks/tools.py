"""The benchmark's one tool: 20 ms of waiting, as a fast service elsewhere would take."""

import asyncio

from holdfast.domain.tools import tool

LATENCY_MS = 20


@tool(effect="read")
async def lookup(key: str) -> dict[str, str]:
    """Look up a value by its key."""
    await asyncio.sleep(LATENCY_MS / 1000)
    return {"key": key, "value": f"the value of {key}"}
