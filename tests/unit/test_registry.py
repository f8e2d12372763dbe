"""A plain typed function becomes a tool; what can't become one is refused at the start, and named."""

import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.tools import Idempotency, tool
from holdfast.tools.functions import tool_from_function, tools_of_modules
from holdfast.tools.registry import ArgumentsRefused, Tool, ToolRegistry
from tests.unit.builders import json_objects


def refund(
    order_id: int,
    amount: Annotated[Decimal, Field(gt=0, description="In dollars.")],
    idempotency_key: str,
    currency: Literal["USD", "EUR"] = "USD",
) -> str:
    """Refund a part of an order.

    To the card it was paid with.
    """
    return f"{order_id} {amount} {currency} {idempotency_key}"


def take(anything: dict[str, Any]) -> str:
    return str(anything)


class Period(BaseModel):
    since: date = Field(alias="from")


def report(period: Period) -> str:
    return str(period.since)


def refused(raw: str, function: Any = refund) -> str:
    with pytest.raises(ArgumentsRefused) as raised:
        tool_from_function(function).parse(raw)
    return str(raised.value)


def test_name_description_and_schema_come_from_the_function() -> None:
    made = tool_from_function(refund)
    assert made.as_function["function"]["name"] == "refund"
    assert made.description == "Refund a part of an order.\n\nTo the card it was paid with."
    assert made.schema["required"] == ["order_id", "amount"]
    assert made.schema["additionalProperties"] is False
    properties = made.schema["properties"]
    assert properties["order_id"]["type"] == "integer"
    assert properties["amount"]["description"] == "In dollars."
    assert (properties["currency"]["enum"], properties["currency"]["default"]) == (["USD", "EUR"], "USD")


def test_a_function_without_a_docstring_is_described_by_its_name() -> None:
    def cancel_all_orders() -> None: ...

    made = tool_from_function(cancel_all_orders)
    assert made.description == "cancel all orders"
    assert made.schema["properties"] == {}
    assert made.parse("") == made.parse(" \n") == made.parse("{}") == {}


def test_the_idempotency_key_is_ours_and_no_model_sees_it() -> None:
    made = tool_from_function(refund)
    assert made.takes_key
    assert made.terms().idempotency is Idempotency.KEY
    assert "idempotency_key" not in str(made.as_function)
    assert "idempotency_key" in refused('{"order_id": 1, "amount": 2, "idempotency_key": "mine"}')


def test_a_function_without_a_key_can_not_be_repeated_unless_it_says_so() -> None:
    assert tool_from_function(take).terms().idempotency is Idempotency.NONE

    @tool(idempotency="natural")
    def set_it() -> None: ...

    @tool(idempotency="key")
    def add_it() -> None: ...

    assert tool_from_function(set_it).terms().idempotency is Idempotency.NATURAL
    with pytest.raises(ConfigurationError, match="needs a parameter idempotency_key: str"):
        tool_from_function(add_it)


def untyped(order_id) -> None: ...  # type: ignore[no-untyped-def]  # wrong on purpose
def many(*orders: int) -> None: ...
def named(**orders: int) -> None: ...
def positional(order_id: int, /) -> None: ...
def unknown_type(order: "Order") -> None: ...  # type: ignore[name-defined]  # noqa: F821  # wrong on purpose
def no_schema(lock: threading.Event) -> None: ...
def private(_order: int) -> None: ...
def pydantics(model_config: int) -> None: ...
def hiding(model_dump: int) -> None: ...
def größe() -> None: ...
def yielding() -> Iterator[int]:
    yield 1


async def yielding_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (untyped, "^tool untyped: parameter 'order_id' has no type; give it one$"),
        (many, "^tool many: parameter 'orders' must be one that can be named$"),
        (named, "^tool named: parameter 'orders' must be one that can be named$"),
        (positional, "^tool positional: parameter 'order_id' must be one that can be named$"),
        (unknown_type, "^tool unknown_type: name 'Order' is not defined$"),
        (no_schema, "^tool no_schema: .*threading.Event"),
        (private, "^tool private: no parameter can be called '_order'; choose another name$"),
        (pydantics, "^tool pydantics: no parameter can be called 'model_config'; choose another name$"),
        (hiding, "^tool hiding: .*'model_dump'"),
        (größe, "^tool größe: a tool's name is at most 64 letters"),
        (yielding, "^tool yielding: yields its result; return it, as a list for instance$"),
        (yielding_later, "^tool yielding_later: yields its result; return it, as a list for instance$"),
    ],
)
def test_what_can_not_be_a_tool_is_named(function: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        tool_from_function(function)
    assert "\n" not in str(raised.value)


def test_a_parameter_may_have_a_name_that_pydantic_uses() -> None:
    def save(schema: str, json: dict[str, int], copy: bool, model_name: str) -> None: ...

    raw = '{"schema": "a", "json": {"b": 1}, "copy": true, "model_name": "c"}'
    assert tool_from_function(save).parse(raw) == {"schema": "a", "json": {"b": 1}, "copy": True, "model_name": "c"}


def test_arguments_are_filled_in_and_made_plain() -> None:
    parsed = tool_from_function(refund).parse('{"amount": 12.5, "order_id": 1042}')
    assert parsed == {"order_id": 1042, "amount": "12.5", "currency": "USD"}


def test_what_was_parsed_can_be_parsed_again_also_under_other_names() -> None:
    made = tool_from_function(report)
    parsed = made.parse('{"period": {"from": "2026-01-01"}}')
    assert parsed == {"period": {"from": "2026-01-01"}}
    assert made.check(parsed) == parsed


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"order_id": "many", "amount": 1}', "the arguments don't fit the tool's schema: order_id: Input should be"),
        ('{"order_id": 1.5, "amount": 1}', "order_id: Input should be a valid integer"),
        ('{"order_id": 1, "amount": 0}', "amount: Input should be greater than 0"),
        ('{"order_id": 1, "amount": 1, "currency": "GBP"}', "currency: Input should be 'USD' or 'EUR'"),
        ('{"order_id": 1, "amount": 1, "now": true}', "now: Extra inputs are not permitted"),
        ('{"amount": 1}', "order_id: Field required"),
        ("", "order_id: Field required; amount: Field required"),
        ("[]", "arguments: Input should be"),
        ("null", "arguments: Input should be"),
        ('"order 1042"', "arguments: Input should be"),
        ('{"order_id": 1', "the arguments are not valid JSON: "),
        ("order 1042", "the arguments are not valid JSON: "),
        ('{"order_id": 1, "amount": 1}{}', "the arguments are not valid JSON: Extra data"),
        ('{"order_id": 9007199254740992, "amount": 1}', "the arguments can't be taken: 9007199254740992 exceeds"),
        ('{"order_id": ' + "9" * 5_000 + ', "amount": 1}', "the arguments are not valid JSON: Exceeds the limit"),
        ('{"order_id": 1, "amount": NaN}', "amount: Input should be a finite number"),
        ('{"order_id": 1, "amount": 1, "\\ud800": 1}', "the arguments don't fit the tool's schema: "),
    ],
    ids=lambda value: value[:30],
)
def test_arguments_that_do_not_fit_are_told_to_the_model(raw: str, said: str) -> None:
    assert said in refused(raw)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "-Infinity",
        "1e400",
        "9007199254740992",
        '{"deep": [NaN]}',
        '"\\ud800"',
        "[" * 400 + "]" * 400,
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=lambda value: value[:20],
)
def test_what_has_no_canonical_form_is_refused_and_never_changed(value: str) -> None:
    assert refused(f'{{"anything": {{"value": {value}}}}}', take).startswith("the arguments ")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", '"NaN"'])
def test_a_number_that_is_none_never_becomes_null(value: str) -> None:
    def wait(hours: float) -> None: ...

    assert refused(f'{{"hours": {value}}}', wait).startswith("the arguments can't be taken: ")


def test_of_a_key_that_comes_twice_only_the_last_is_shown_and_run() -> None:
    assert tool_from_function(take).parse('{"anything": {"a": 1, "a": 2}, "anything": {"a": 3}}') == {
        "anything": {"a": 3}
    }


@given(json_objects)
def test_arguments_that_fit_are_what_the_model_said(anything: dict[str, Any]) -> None:
    assert tool_from_function(take).parse(json.dumps({"anything": anything})) == {"anything": anything}


@given(st.text())
def test_any_text_is_parsed_or_refused(raw: str) -> None:
    with suppress(ArgumentsRefused):
        assert set(tool_from_function(take).parse(raw)) == {"anything"}


def test_the_digest_of_a_schema_is_stable_and_changes_with_it() -> None:
    def take_two(anything: dict[str, Any], more: int = 0) -> str:
        return f"{anything} {more}"

    digest = tool_from_function(take).schema_digest
    assert digest == tool_from_function(take).schema_digest
    take_two.__name__ = "take"
    assert digest != tool_from_function(take_two).schema_digest


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_modules_own_public_functions_are_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from json import dumps\nLIMIT = 3\nclass Order: ...\ndef _hidden(): ...\ndef shown() -> None: ...\n"
    registry = ToolRegistry(tools_of_modules([module(tmp_path, "holdfast_tools_one", text, monkeypatch)]))
    assert registry.names == ("shown",)
    assert registry.get("shown") is not None
    assert registry.get("_hidden") is None


def test_tools_are_found_by_pattern_once_each() -> None:
    registry = ToolRegistry([tool_from_function(refund), tool_from_function(report), tool_from_function(take)])
    assert [made.name for made in registry.matching(["re*", "refund", "*d"])] == ["refund", "report"]
    assert registry.matching([]) == []


def test_two_tools_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        module(tmp_path, f"holdfast_tools_{number}", "def shown() -> None: ...\n", monkeypatch) for number in (2, 3)
    ]
    with pytest.raises(ConfigurationError, match=r"^tool shown: defined twice; tool names must differ$"):
        ToolRegistry(tools_of_modules(names))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import holdfast_has_no_such_module", "ModuleNotFoundError: No module named 'holdfast_has_no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_can_not_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    name = module(tmp_path, "holdfast_tools_broken", text, monkeypatch)
    with pytest.raises(ConfigurationError, match=f"^tools: module '{name}' can't be imported: {complaint}"):
        ToolRegistry(tools_of_modules([name]))


def test_a_module_that_is_not_there_is_looked_for_where_one_stands() -> None:
    where = "; it must be below the folder that you stand in, or installed$"
    for name in ("holdfast_no_such_package.tools", "tests.no_such_module"):
        with pytest.raises(ConfigurationError, match=where):
            tools_of_modules([name])


def test_the_tools_of_a_source_can_come_change_and_go() -> None:
    kept, first, second = (idle(name) for name in ("kept", "first", "second"))
    registry = ToolRegistry([kept])

    for tools in ([first], [second], []):
        registry.replace("a server", tools)
        assert registry.names == ("kept", *(tool.name for tool in tools))


def test_no_source_takes_the_name_of_anothers_tool() -> None:
    registry = ToolRegistry([idle("kept")])
    registry.replace("a server", [idle("first")])
    for clash in ([idle("second"), idle("kept")], [idle("second"), idle("second")]):
        with pytest.raises(ConfigurationError, match="defined twice"):
            registry.replace("a server", clash)

    assert registry.names == ("kept", "first")


def test_a_disabled_tool_is_not_offered_and_refuses_its_calls() -> None:
    disabled = replace(idle("pay"), disabled="Nobody has accepted it.")
    registry = ToolRegistry([disabled, idle("look")])

    assert [tool.name for tool in registry.matching(["*"])] == ["look"]
    assert registry.get("pay") is disabled
    for refuse in (partial(disabled.parse, "{}"), partial(disabled.check, {})):
        with pytest.raises(ArgumentsRefused, match=r"Nobody has accepted it\."):
            refuse()


def idle(name: str) -> Tool:
    """A tool that does nothing."""

    def function() -> None: ...

    function.__name__ = name
    return tool_from_function(function)
