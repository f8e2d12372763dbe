"""What a decision is bound to: this call, with exactly these arguments."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.confirmations import arguments_digest, canonical_digest
from tests.unit.builders import json_objects, texts

BOUND: dict[str, Any] = {
    "tenant_id": "acme",
    "run_id": "run_1",
    "tool_call_id": "call_1",
    "tool": "refund_order",
    "schema_digest": "0" * 64,
    "arguments": {"order_id": 1042, "reason": "late"},
}
NAMES = sorted(BOUND.keys() - {"arguments"})


def digest(**changes: Any) -> str:
    return arguments_digest(**BOUND | changes)


def in_canonical_order(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reversed_keys(value[name]) for name in reversed(value)}
    return [reversed_keys(part) for part in value] if isinstance(value, list) else value


def test_it_is_64_hexadecimal_digits_and_the_same_each_time() -> None:
    assert digest() == digest()
    assert len(bytes.fromhex(digest())) == 32


@given(st.sampled_from(NAMES), texts)
def test_it_changes_with_every_part(name: str, other: str) -> None:
    assert (digest(**{name: other}) == digest()) is (other == BOUND[name])


@given(json_objects, json_objects)
def test_it_is_the_same_for_the_same_arguments_only(first: dict[str, Any], second: dict[str, Any]) -> None:
    is_same = in_canonical_order(first) == in_canonical_order(second)
    assert (digest(arguments=first) == digest(arguments=second)) is is_same


@given(json_objects, texts, st.integers(0, 9))
def test_one_more_argument_changes_it(arguments: dict[str, Any], name: str, value: int) -> None:
    more = {**arguments, name: value}
    assert (digest(arguments=more) == digest(arguments=arguments)) is (
        in_canonical_order(more) == in_canonical_order(arguments)
    )


@given(json_objects)
def test_the_order_of_keys_changes_nothing(arguments: dict[str, Any]) -> None:
    assert digest(arguments=arguments) == digest(arguments=reversed_keys(arguments))


@given(json_objects)
def test_what_the_database_gives_back_has_the_digest_of_what_it_was_given(arguments: dict[str, Any]) -> None:
    assert digest(arguments=json.loads(json.dumps(arguments))) == digest(arguments=arguments)


def test_parts_do_not_run_into_each_other() -> None:
    assert digest(tenant_id="a", run_id="b:c") != digest(tenant_id="a:b", run_id="c")
    assert digest(arguments={"a": ["b", "c"]}) != digest(arguments={"a": ["b,c"]})
    assert digest(arguments={"amount": "1"}) != digest(arguments={"amount": 1})
    assert digest(arguments={"really": True}) != digest(arguments={"really": 1})
    assert digest(arguments={"text": "\u00e9"}) != digest(arguments={"text": "e\u0301"})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, -(2**53), 10**400, "\ud800", {1: "not a text"}, {"a", "b"}, object()]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_digest(value)
    with pytest.raises(ValueError, match=r"."):
        digest(arguments={"deep": [value]})


def test_the_largest_integers_that_every_language_reads_alike_are_taken() -> None:
    assert canonical_digest(2**53 - 1) != canonical_digest(2**53 - 2)
    assert canonical_digest(-(2**53) + 1) != canonical_digest(-(2**53) + 2)
