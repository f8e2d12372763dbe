"""A workflow calls activities by name: each stub agrees with the activity that the worker registers under it."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest
from temporalio import activity

from holdfast.config.settings import WorkerSettings
from worker import wiring
from workflows import stubs

#: Nothing is connected: the activities are only looked at.
NOTHING = cast(Any, None)
SETTINGS = WorkerSettings.model_construct(task_queue="a queue")

CALLERS = {"execute_activity", "execute_local_activity"}
ACTIVITIES_CODE = ast.parse(
    "\n".join(path.read_text() for path in Path(wiring.__file__).parents[1].glob("activities/*.py"))
)


def registered() -> dict[str, Callable[..., Any]]:
    """The activities of a worker, by the name they are registered under."""
    found = wiring._activities(SETTINGS, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    named = {activity._Definition.must_from_callable(function).name: function for function in found}
    assert len(named) == len(found)
    return {name: function for name, function in named.items() if name is not None}


def stubbed() -> dict[str, Callable[..., Any]]:
    """The stubs, by name."""
    return {
        name: function
        for name, function in vars(stubs).items()
        if inspect.iscoroutinefunction(function) and function.__module__ == stubs.__name__
    }


NAMES = sorted(stubbed())


def calls_in(name: str) -> list[ast.Call]:
    """The calls to Temporal that a stub makes: one, or two to choose from."""
    body = ast.parse(inspect.getsource(stubbed()[name]))
    calls = [
        node
        for node in ast.walk(body)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLERS
    ]
    assert calls
    return calls


def options_of(call: ast.Call) -> dict[str, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}


def input_and_result(function: Callable[..., Any]) -> tuple[Any, Any]:
    hints = get_type_hints(function)
    result = hints.pop("return")
    return next(iter(hints.values())), result


def test_each_activity_has_a_stub_and_each_stub_an_activity() -> None:
    assert sorted(registered()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_has_the_types_of_its_activity(name: str) -> None:
    assert input_and_result(stubbed()[name]) == input_and_result(registered()[name])


@pytest.mark.parametrize("name", NAMES)
def test_an_activity_takes_one_value(name: str) -> None:
    assert len(inspect.signature(registered()[name]).parameters) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_calls_the_activity_of_its_own_name_with_its_first_parameter(name: str) -> None:
    for call in calls_in(name):
        called, value = call.args
        assert ast.literal_eval(called) == name
        assert ast.unparse(value) == next(iter(inspect.signature(stubbed()[name]).parameters))


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_names_the_type_of_its_result(name: str) -> None:
    _, result = input_and_result(stubbed()[name])
    for call in calls_in(name):
        assert eval(options_of(call)["result_type"], vars(stubs)) is result  # our own source, read above


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_owns_its_timeout_its_retries_and_its_summary(name: str) -> None:
    for call in calls_in(name):
        assert {"start_to_close_timeout", "retry_policy", "summary"} <= options_of(call).keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_heartbeats_is_waited_for_as_such_and_what_is_local_is_not_kept_alive_for_ever(name: str) -> None:
    (code,) = (
        node for node in ast.walk(ACTIVITIES_CODE) if isinstance(node, ast.AsyncFunctionDef) and node.name == name
    )
    heartbeats = "heartbeating()" in ast.unparse(code)
    for call in calls_in(name):
        is_local = cast(ast.Attribute, call.func).attr == "execute_local_activity"
        assert ("local_retry_threshold" in options_of(call)) is is_local
        assert ("heartbeat_timeout" in options_of(call)) is (heartbeats and not is_local)
