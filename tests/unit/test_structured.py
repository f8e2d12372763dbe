"""Structured output: what is read out of an answer, and what a schema may not do to the process."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.errors import InvalidInput
from holdfast.llm.structured import Malformed, Schema

ANYTHING = Schema({})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


AROUND = ["{}", "```json\n{}\n```", "```\n{}\n```", "Here:\n```json\n{}\n```\nThere.", "```{}```"]


def doubling(levels: int) -> dict[str, Any]:
    """A schema that refers to itself two to the power of `levels` times."""
    twice = {str(n): {"allOf": [{"$ref": f"#/$defs/{n - 1}"}] * 2} for n in range(1, levels + 1)}
    return {"$ref": f"#/$defs/{levels}", "$defs": {"0": {}, **twice}}


@given(VALUES, st.sampled_from(AROUND))
def test_a_value_is_read_whatever_stands_around_it(value: Any, around: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert ANYTHING.read(around.replace("{}", text)) == value


@pytest.mark.parametrize(
    "value", [{"code": "```python\nprint()\n```"}, "```", ["``` a ```", "b"], {"a": "one ```json\n{}\n``` two"}]
)
def test_fences_within_a_string_are_part_of_it(value: Any) -> None:
    text = json.dumps(value)
    assert ANYTHING.read(text) == value
    assert ANYTHING.read(f"```json\n{text}\n```") == value
    assert ANYTHING.read(f"```json\n{json.dumps(value, indent=2)}\n```") == value


@pytest.mark.parametrize("answer", ["", "no", "{", "NaN", "[Infinity]", "{'a': 1}", "```json\n```", "[" * 100_000])
def test_what_is_not_json_is_malformed(answer: str) -> None:
    with pytest.raises(Malformed, match="it is not JSON"):
        ANYTHING.read(answer)


def test_every_mistake_is_told_with_its_path_and_not_more_than_a_few() -> None:
    schema = Schema({"type": "array", "items": {"type": "integer"}})
    with pytest.raises(Malformed) as raised:
        schema.read(json.dumps(["x"] * 1000))

    assert len(raised.value.errors) == 10
    assert raised.value.errors[0] == ("$[0]", "'x' is not of type 'integer'")


def test_a_schema_within_itself_is_followed() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False}
    assert Schema(tree).read('{"child": {"child": {}}}') == {"child": {"child": {}}}
    with pytest.raises(Malformed):
        Schema(tree).read('{"child": {"child": {"other": 1}}}')


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
        {"pattern": "("},
        # Each takes as long as the universe lasts, or nearly.
        {"pattern": "^((a|aa)+)+$"},
        doubling(40),
    ],
    ids=["from outside", "nowhere", "itself", "broken pattern", "slow pattern", "two to the forty"],
)
def test_a_schema_that_can_not_be_applied_is_the_callers_mistake(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Schema(schema).read(json.dumps("a" * 40 + "!"))


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"properties": 1}, {"patternProperties": {"^(a+)+$": {}}}])
def test_a_schema_that_is_none_is_refused_at_once(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Schema(schema)


def test_a_schema_is_read_as_the_draft_that_it_names() -> None:
    # In draft 7, `items` may be a list; since 2020-12 that is another keyword.
    pair = {"items": [{"type": "string"}, {"type": "integer"}]}
    assert Schema({"$schema": "http://json-schema.org/draft-07/schema#", **pair}).read('["a", 1]') == ["a", 1]
    with pytest.raises(Malformed):
        Schema({"$schema": "http://json-schema.org/draft-07/schema#", **pair}).read('["a", "b"]')
    with pytest.raises(InvalidInput):
        Schema(pair)
