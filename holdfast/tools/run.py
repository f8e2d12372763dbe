"""Running one tool: in a thread if it is synchronous, cut at its timeout, its result turned into text for the model."""

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from holdfast.tools.registry import KEY_PARAMETER, Tool

#: What is kept of a result, in characters. PostgreSQL could hold more; no model reads as much.
MAX_STORED_CHARACTERS = 1_000_000

#: What the model is shown of a result, in characters (about 8,000 tokens).
MAX_SHOWN_CHARACTERS = 32 * 1024

#: What is kept of an error's text, in characters.
MAX_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True)
class Returned:
    """The tool returned: `result` is JSON text, cut to `MAX_STORED_CHARACTERS` with a note where it was longer."""

    result: str


@dataclass(frozen=True)
class Raised:
    """The tool raised: its effect did not happen, as far as its author says."""

    error: str


@dataclass(frozen=True)
class TimedOut:
    """The tool was cut at its timeout: nobody knows whether its effect happened."""

    timeout_s: float


Outcome = Returned | Raised | TimedOut


class ToolRunner:
    """Runs tools. Synchronous ones get a thread of their own pool, so that a slow one never stops the event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tool")

    async def run(self, tool: Tool, arguments: dict[str, Any], idempotency_key: str) -> Outcome:
        """Call a tool with validated arguments. Never raises what the tool raises."""
        call = partial(tool.function, **_values(tool, arguments, idempotency_key))
        try:
            async with asyncio.timeout(tool.declaration.timeout_s):
                value = await self._call(call, is_async=inspect.iscoroutinefunction(tool.function))
        except TimeoutError as error:
            # A TimeoutError of the tool's own, before the time is up, is a failure like any other.
            return TimedOut(tool.declaration.timeout_s) if _is_ours(error) else _raised(error)
        except Exception as error:  # the tool is the user's code: whatever it raises is for the model to read
            return _raised(error)
        return Returned(_as_text(value))

    def close(self) -> None:
        """Take no more calls; those that run are left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, call: Callable[[], Any], *, is_async: bool) -> Any:
        if is_async:
            return await call()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _values(tool: Tool, arguments: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
    parsed = tool.arguments.model_validate(arguments)
    values = {name: getattr(parsed, name) for name in type(parsed).model_fields}
    return {**values, KEY_PARAMETER: idempotency_key} if tool.takes_key else values


def _is_ours(error: TimeoutError) -> bool:
    # asyncio.timeout raises from the cancellation that it caused.
    return isinstance(error.__cause__, asyncio.CancelledError)


def _raised(error: Exception) -> Raised:
    return Raised(storable(f"{type(error).__name__}: {error}", MAX_ERROR_CHARACTERS))


def _as_text(value: Any) -> str:
    try:
        return storable(to_json(value).decode(), MAX_STORED_CHARACTERS)
    except (PydanticSerializationError, UnicodeError, ValueError, RecursionError) as error:
        note = f"The tool ran, but what it returned ({type(value).__name__}) can't be shown: {error}"
        return storable(to_json({"note": note[:MAX_ERROR_CHARACTERS]}).decode(), MAX_STORED_CHARACTERS)


def storable(text: str, limit: int) -> str:
    """Text as PostgreSQL can hold it, at most `limit` characters, with a note of what was cut."""
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return cut(clean, limit)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text; where it was longer, a note says how much is missing."""
    return (
        text if len(text) <= limit else f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters left out]"
    )
