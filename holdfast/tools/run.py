"""Running one tool: in a thread if it is synchronous, cut at its timeout, its result turned into text for the model."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

from holdfast.domain.storable import storable
from holdfast.domain.tools import DEFAULT_TIMEOUT_S
from holdfast.secrecy.redaction import redacted, without_known_secrets
from holdfast.tools.doubt import is_in_doubt
from holdfast.tools.registry import Tool

#: What is kept of a result, in characters. PostgreSQL could hold more; no model reads as much.
MAX_STORED_CHARACTERS = 1_000_000

#: What the model is shown of a result, in characters (about 8,000 tokens).
MAX_SHOWN_CHARACTERS = 32 * 1024

#: What is kept of an error's text, in characters.
MAX_ERROR_CHARACTERS = 2_000


class OutcomeUnknown(Exception):
    """Raised by a tool that can't say whether its effect happened."""


class NothingHappened(Exception):
    """Raised by a tool that knows that it had no effect, whatever the cause: also when a connection was lost."""


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


@dataclass(frozen=True)
class Unknown:
    """The tool itself says that nobody knows whether its effect happened."""

    reason: str


Outcome = Returned | Raised | TimedOut | Unknown


class ToolRunner:
    """Runs tools. A synchronous one gets a thread of its own, so that a slow one never stops the event loop."""

    async def run(
        self, tool: Tool, arguments: dict[str, Any], idempotency_key: str, timeout_s: float | None = None
    ) -> Outcome:
        """Call a tool with validated arguments. Never raises what the tool raises.

        `timeout_s`: seconds after which it is cut; by default what its author declares.
        """
        timeout_s = timeout_s or tool.declaration.timeout_s or DEFAULT_TIMEOUT_S
        return await _run(partial(tool.call, arguments, idempotency_key), is_async=tool.is_async, timeout_s=timeout_s)

    async def probe(
        self, tool: Tool, arguments: dict[str, Any], idempotency_key: str, timeout_s: float
    ) -> Returned | Literal[False] | None:
        """Ask a tool's probe what became of a call: its result, False when it did not happen, None when nobody knows.

        A probe that raises, or does not answer, knows nothing.
        """
        probe = tool.declaration.probe
        if probe is None:
            return None
        asked = partial(probe, **_asked_for(probe, arguments, idempotency_key))
        outcome = await _run(asked, is_async=inspect.iscoroutinefunction(probe), timeout_s=timeout_s)
        if not isinstance(outcome, Returned) or outcome.result == "null":
            return None
        return False if outcome.result == "false" else outcome


async def _run(call: Callable[[], Any], *, is_async: bool, timeout_s: float) -> Outcome:
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await _call(call, is_async=is_async)
    except TimeoutError as error:
        # A TimeoutError of the tool's own, before the time is up, is judged like any other exception.
        return TimedOut(timeout_s) if limit.expired() else _failed(error)
    except asyncio.CancelledError as error:
        # So is a CancelledError that nobody asked for: something the tool waited for was cancelled.
        if _is_cancelled():
            raise
        return _failed(error)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # The tool is the user's code: whatever it raises is for the model to read. `sys.exit` ends no worker.
        return _failed(error)


def _asked_for(probe: Callable[..., Any], arguments: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
    """Of a call's arguments, and its key, those that a probe wants to see."""
    known = {**arguments, "idempotency_key": idempotency_key}
    return {name: known[name] for name in inspect.signature(probe).parameters if name in known}


async def _call(call: Callable[[], Any], *, is_async: bool) -> Returned | Raised | Unknown:
    if is_async:
        return Returned(_as_text(await call()))
    finished = await _in_a_thread(call)
    # A plain function around an asynchronous one has done nothing yet.
    return finished if isinstance(finished, Returned | Raised | Unknown) else Returned(_as_text(await finished))


async def _in_a_thread(call: Callable[[], Any]) -> Returned | Raised | Unknown | Awaitable[Any]:
    # Not in a pool: one that hangs beyond its timeout would take a place in it for good, and a pool's threads are
    # waited for when the process ends.
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Returned | Raised | Unknown | Awaitable[Any]] = loop.create_future()

    def work() -> None:
        finished = _finished(call)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrive, finished)

    def arrive(finished: Returned | Raised | Unknown | Awaitable[Any]) -> None:
        if not arrived.done():
            arrived.set_result(finished)

    threading.Thread(target=work, name="tool", daemon=True).start()
    return await arrived


def _finished(call: Callable[[], Any]) -> Returned | Raised | Unknown | Awaitable[Any]:
    # In the tool's thread, since not everything passes through a future: a StopIteration would never arrive.
    try:
        value = call()
        return value if inspect.isawaitable(value) else Returned(_as_text(value))
    except BaseException as error:
        return _failed(error)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(error: BaseException) -> Raised | Unknown:
    if isinstance(error, OutcomeUnknown):
        return Unknown(_storable_error(_text(error)))
    said = _storable_error(f"{type(error).__name__}: {_text(error)}")
    return Raised(said) if isinstance(error, NothingHappened) or not is_in_doubt(error) else Unknown(said)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose own text fails
        return "it has no text"


def _storable_error(text: str) -> str:
    # It is stored, and shown to the model, which may repeat it: a library's error may quote the key it was called with.
    # Cut far behind what is kept, so that no secret is cut in two there, and a text without end costs no time.
    return storable(redacted(text[: 10 * MAX_ERROR_CHARACTERS]), MAX_ERROR_CHARACTERS)


def _as_text(value: Any) -> str:
    try:
        return storable(without_known_secrets(to_json(value).decode()), MAX_STORED_CHARACTERS)
    except (PydanticSerializationError, UnicodeError, ValueError, RecursionError) as error:
        note = redacted(f"The tool ran, but what it returned ({type(value).__name__}) can't be shown: {error}")
        return storable(to_json({"note": note[:MAX_ERROR_CHARACTERS]}).decode(), MAX_STORED_CHARACTERS)
