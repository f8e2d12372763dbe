"""Running a tool: whatever it does, the worker gets an outcome, and goes on."""

import asyncio
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.storable import cut, storable
from holdfast.domain.tools import tool
from holdfast.tools.functions import tool_from_function
from holdfast.tools.run import (
    MAX_ERROR_CHARACTERS,
    MAX_STORED_CHARACTERS,
    Outcome,
    OutcomeUnknown,
    Raised,
    Returned,
    TimedOut,
    ToolRunner,
    Unknown,
)

KEY = "call_1"


#: Hangs beyond its timeout, in a process that then has nothing more to do.
LEAVES_A_HANGING_TOOL = """
import asyncio, threading
from holdfast.domain.tools import tool
from holdfast.tools.functions import tool_from_function
from holdfast.tools.run import ToolRunner

@tool(timeout_s=0.05)
def hang() -> None:
    threading.Event().wait()

print(asyncio.run(ToolRunner().run(tool_from_function(hang), {}, "call_1")))
"""


@pytest.fixture
def runner() -> ToolRunner:
    return ToolRunner()


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a tool that hangs waits for, so that its thread ends with the test."""
    event = threading.Event()
    yield event
    event.set()


async def outcome(runner: ToolRunner, function: Callable[..., Any], **arguments: Any) -> Outcome:
    return await runner.run(tool_from_function(function), arguments, KEY)


async def returned(runner: ToolRunner, function: Callable[..., Any], **arguments: Any) -> str:
    given_back = await outcome(runner, function, **arguments)
    assert isinstance(given_back, Returned)
    return given_back.result


async def result(runner: ToolRunner, value: Any) -> str:
    """What is stored of a value that a tool returns."""

    def give() -> Any:
        return value

    stored = await returned(runner, give)
    assert stored.encode().decode() == stored
    assert "\x00" not in stored
    return stored


def in_both_ways(name: str, act: Callable[[], Any]) -> list[Any]:
    """The same tool as a plain function and as an asynchronous one."""

    def plain() -> Any:
        return act()

    async def asynchronous() -> Any:
        return act()

    return [pytest.param(plain, id=f"{name}, plain"), pytest.param(asynchronous, id=f"{name}, asynchronous")]


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise error

    return act


def recursing() -> int:
    return recursing() + 1


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_a_plain_function_runs_in_a_thread_of_its_own(runner: ToolRunner) -> None:
    def where() -> str:
        return threading.current_thread().name

    assert json.loads(await returned(runner, where)) != threading.current_thread().name


async def test_a_plain_function_that_waits_does_not_stop_the_event_loop(
    runner: ToolRunner, released: threading.Event
) -> None:
    def wait() -> str:
        released.wait()
        return "went on"

    running = asyncio.create_task(returned(runner, wait))
    # Only the loop can let it go on.
    asyncio.get_running_loop().call_soon(released.set)
    assert await running == '"went on"'


async def test_an_asynchronous_function_runs_in_the_loop(runner: ToolRunner) -> None:
    async def where() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert json.loads(await returned(runner, where)) == threading.current_thread().name


async def test_a_plain_function_around_an_asynchronous_one_is_run_to_its_end(runner: ToolRunner) -> None:
    async def inner() -> str:
        await asyncio.sleep(0)
        return "done"

    @functools.wraps(inner)
    def around() -> Any:
        return inner()

    assert await returned(runner, around) == '"done"'


@pytest.mark.parametrize("tool_function", in_both_ways("a doubt", raising(OutcomeUnknown("the bank\x00 hung up"))))
async def test_a_tool_may_say_that_it_does_not_know(runner: ToolRunner, tool_function: Callable[[], Any]) -> None:
    assert await outcome(runner, tool_function) == Unknown("the bank\ufffd hung up")


async def test_arguments_come_as_the_types_that_were_declared(runner: ToolRunner) -> None:
    def show(times: int, words: tuple[str, ...] = ("a", "b")) -> str:
        return f"{times!r} {words!r}"

    assert json.loads(await returned(runner, show, times=2, words=["x"])) == "2 ('x',)"
    assert json.loads(await returned(runner, show, times=2)) == "2 ('a', 'b')"


async def test_the_key_is_given_to_a_function_that_takes_one(runner: ToolRunner) -> None:
    def pay(amount: int, idempotency_key: str) -> str:
        return f"{amount} under {idempotency_key}"

    assert json.loads(await returned(runner, pay, amount=5)) == f"5 under {KEY}"


async def test_arguments_that_fit_no_longer_are_a_failure_and_nothing_runs(runner: ToolRunner) -> None:
    ran = []

    def pay(amount: int) -> None:
        ran.append(amount)

    failed = await outcome(runner, pay, amount="much")
    assert isinstance(failed, Raised)
    assert failed.error.startswith("ValidationError: ")
    assert ran == []


@pytest.mark.parametrize(
    "function",
    [
        *in_both_ways("an error", raising(LookupError("there is no order 7"))),
        *in_both_ways("an empty iterator", lambda: next(iter([]))),
        *in_both_ways("a cancellation", raising(asyncio.CancelledError())),
        *in_both_ways("an exit", lambda: sys.exit(3)),
        *in_both_ways("an interrupt", raising(KeyboardInterrupt())),
        *in_both_ways("an error without a text", raising(Mute())),
        *in_both_ways("several errors", raising(ExceptionGroup("both", [ValueError("a"), OSError("b")]))),
        *in_both_ways("an endless recursion", recursing),
    ],
)
async def test_whatever_a_tool_raises_is_an_outcome(runner: ToolRunner, function: Callable[[], Any]) -> None:
    assert isinstance(await outcome(runner, function), Raised)
    # The runner, and the loop it runs in, are as before.
    assert await result(runner, "next") == '"next"'


@pytest.mark.parametrize("function", in_both_ways("unknown", raising(OutcomeUnknown("the line went dead"))))
async def test_a_tool_that_can_not_say_what_happened_has_not_failed(
    runner: ToolRunner, function: Callable[[], Any]
) -> None:
    assert await outcome(runner, function) == Unknown("the line went dead")


async def test_the_model_reads_what_was_raised(runner: ToolRunner) -> None:
    def look_up() -> None:
        raise LookupError("there is no order 7")

    assert await outcome(runner, look_up) == Raised("LookupError: there is no order 7")


@pytest.mark.parametrize("text", ["x" * 10_000_000, "\ud800", "a\x00b"])
async def test_the_text_of_an_error_can_be_stored(runner: ToolRunner, text: str) -> None:
    def fail() -> None:
        raise ValueError(text)

    failed = await outcome(runner, fail)
    assert isinstance(failed, Raised)
    assert len(failed.error.encode()) < MAX_ERROR_CHARACTERS + 100
    assert "\x00" not in failed.error


async def test_a_plain_function_is_cut_at_its_timeout(runner: ToolRunner, released: threading.Event) -> None:
    @tool(timeout_s=0.05)
    def hang() -> None:
        released.wait()

    assert await outcome(runner, hang) == TimedOut(0.05)
    assert await result(runner, "next") == '"next"'


async def test_an_asynchronous_function_is_cut_at_its_timeout(runner: ToolRunner) -> None:
    was_cut = asyncio.Event()

    @tool(timeout_s=0.05)
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cut.set()

    assert await outcome(runner, hang) == TimedOut(0.05)
    assert was_cut.is_set()


async def test_tools_that_hang_keep_no_other_waiting(runner: ToolRunner, released: threading.Event) -> None:
    @tool(timeout_s=0.05)
    def hang() -> None:
        released.wait()

    hanging = await asyncio.gather(*(outcome(runner, hang) for _ in range(50)))
    assert set(hanging) == {TimedOut(0.05)}
    assert await result(runner, "next") == '"next"'


def test_a_tool_that_hangs_keeps_no_process_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES_A_HANGING_TOOL], capture_output=True, text=True, check=True)
    assert done.stdout == "TimedOut(timeout_s=0.05)\n"


async def test_a_time_limit_inside_the_tool_is_the_tools_own(runner: ToolRunner) -> None:
    async def ask_the_bank() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def ask_the_bank_otherwise() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    for function in (ask_the_bank, ask_the_bank_otherwise):
        assert await outcome(runner, function) == Unknown("TimeoutError: ")


@pytest.mark.parametrize(
    "function", in_both_ways("a lost connection", raising(ConnectionResetError("the bank hung up")))
)
async def test_a_tool_whose_connection_was_lost_does_not_know(runner: ToolRunner, function: Callable[[], Any]) -> None:
    assert await outcome(runner, function) == Unknown("ConnectionResetError: the bank hung up")


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_cancellation_from_outside_is_not_the_tools(
    runner: ToolRunner, released: threading.Event, is_async: bool
) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    def hang_in_a_thread() -> None:
        loop.call_soon_threadsafe(began.set)
        released.wait()

    running = asyncio.create_task(outcome(runner, hang if is_async else hang_in_a_thread))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ({"b": 1, "a": [True, None, "é"]}, '{"b":1,"a":[true,null,"é"]}'),
        ("a\x00b", r'"a\u0000b"'),
        (float("nan"), "NaN"),
        (2**64, "18446744073709551616"),
        ({1: "one"}, '{"1":"one"}'),
        (b"text", '"text"'),
    ],
)
async def test_a_result_is_json_text(runner: ToolRunner, value: Any, expected: str) -> None:
    assert await result(runner, value) == expected


def recursive() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), {"lock": object()}, "\ud800", {"\ud800": 1}, b"\xff", recursive(), nested(100_000)],
    ids=["a lock", "an object", "a lone surrogate", "a lone surrogate as key", "bytes", "a loop", "deep"],
)
async def test_what_can_not_be_shown_is_said_to_have_run(runner: ToolRunner, value: Any) -> None:
    note = json.loads(await result(runner, value))["note"]
    assert note.startswith(f"The tool ran, but what it returned ({type(value).__name__}) can't be shown: ")


async def test_of_ten_megabytes_the_beginning_is_kept_and_the_rest_is_counted(runner: ToolRunner) -> None:
    kept = await result(runner, "x" * 10_000_000)
    assert kept.startswith('"xxx')
    assert kept.endswith(f"\n[cut: {10_000_002 - MAX_STORED_CHARACTERS} of 10000002 characters left out]")
    assert len(kept) < MAX_STORED_CHARACTERS + 100


@given(st.text(), st.integers(0, 20))
def test_a_text_is_cut_only_where_it_is_longer(text: str, limit: int) -> None:
    kept = cut(text, limit)
    assert kept == text if len(text) <= limit else kept.startswith(f"{text[:limit]}\n[cut: {len(text) - limit} of ")


@given(st.text())
def test_what_is_storable_can_be_stored_and_stays_as_it_is(text: str) -> None:
    stored = storable(text, 1_000_000)
    assert "\x00" not in stored
    assert stored.encode().decode() == stored == storable(stored, 1_000_000)
