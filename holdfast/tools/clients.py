"""Tools of a client as tools: offered and checked like others, and never called here."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn

from holdfast.domain.client_tools import ClientTool
from holdfast.domain.json_schema import JsonSchema, SchemaUnusable
from holdfast.domain.tools import Declaration
from holdfast.tools.registry import ArgumentsRefused, Tool


def as_tools(declared: Iterable[ClientTool]) -> dict[str, Tool]:
    """What a client declared, by name."""
    return {one.name: _as_tool(one) for one in declared}


def _as_tool(declared: ClientTool) -> Tool:
    schema = dict(declared.parameters)
    return Tool(
        name=declared.name,
        description=declared.description,
        schema=schema,
        declaration=Declaration(),
        takes_key=False,
        validate=partial(_validated, JsonSchema(schema)),
        call=_never,
    )


def _validated(schema: JsonSchema, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ArgumentsRefused("the arguments don't fit the tool's schema: it is not an object")
    try:
        wrong = schema.errors(values)
    except SchemaUnusable as unusable:
        raise ArgumentsRefused(f"the tool's schema can't be applied. {unusable}") from None
    if wrong:
        named = "; ".join(f"{path}: {what}" for path, what in wrong)
        raise ArgumentsRefused(f"the arguments don't fit the tool's schema: {named}")
    return values


def _never(_arguments: dict[str, Any], _key: str) -> NoReturn:
    raise AssertionError("a client's tool is run by the client")
