"""JSON Schemas that others wrote, applied so that none of them can hurt the process.

A schema may be a tenant's, or an MCP server's, and the process is everybody's. So nothing is fetched (a `$ref` that
leads out of the schema is a mistake in it), and what could take for ever is bounded: patterns by time, references by
number.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import regex
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

#: How many mistakes of a value are named.
_MAX_ERRORS = 10
_MAX_ERROR_CHARACTERS = 300

#: How many references are followed for one value, and how many seconds one pattern may take.
_MAX_REFERENCES = 10_000
_PATTERN_TIMEOUT_S = 0.2

_DRAFT_7 = "http://json-schema.org/draft-07/schema"


class SchemaUnusable(Exception):
    """The schema is none, or can't be applied. The text is a sentence that says why."""


class JsonSchema:
    """A JSON Schema (2020-12, or draft 7 if its `$schema` says so; without `patternProperties`).

    Raises:
        SchemaUnusable: it is not a valid schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        named = schema.get("$schema")
        is_draft_7 = isinstance(named, str) and named.rstrip("#") == _DRAFT_7
        self._dialect = Draft7Validator if is_draft_7 else Draft202012Validator
        try:
            self._dialect.check_schema(schema)
            self.text = json.dumps(schema, ensure_ascii=False, sort_keys=True)
        except SchemaError as error:
            what = error.message[:_MAX_ERROR_CHARACTERS]
            raise SchemaUnusable(f"It is not a valid JSON Schema: {what}") from None
        except RecursionError:
            raise SchemaUnusable("It is nested too deeply.") from None
        if '"patternProperties":' in self.text:
            raise SchemaUnusable("patternProperties are not supported; name the properties.")
        self._schema = schema

    def errors(self, value: Any) -> list[tuple[str, str]]:
        """What is wrong with a value: JSON paths (`$` for the whole) in order, and what is wrong there; ten at most.

        Raises:
            SchemaUnusable: the schema can't be applied: a `$ref` leads nowhere or round and round, or a pattern takes
                too long.
        """
        try:
            errors = list(itertools.islice(self._validator().iter_errors(value), _MAX_ERRORS))
        except Unresolvable as error:
            raise SchemaUnusable(f"It refers to something that is not in it: {error.ref!r}") from None
        except (RecursionError, _TooCostly):
            raise SchemaUnusable("It refers to itself without end, or too often.") from None
        except (TimeoutError, regex.error):
            raise SchemaUnusable("A pattern of it is broken, or takes too long.") from None
        return [_described(error) for error in sorted(errors, key=lambda error: error.json_path)]

    def _validator(self) -> Any:
        """A validator with a budget of its own."""
        spent = itertools.count()
        follow = self._dialect.VALIDATORS["$ref"]

        def followed(validator: Any, reference: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
            if next(spent) >= _MAX_REFERENCES:
                raise _TooCostly
            yield from follow(validator, reference, instance, schema)

        keywords = {"$ref": followed, "$dynamicRef": followed, "pattern": _matched}
        bounded = extend(self._dialect, keywords)  # type: ignore[no-untyped-call]  # its stubs leave it out
        # With a registry of its own, the validator fetches nothing.
        return bounded(self._schema, registry=Registry())


class _TooCostly(Exception):
    """The budget of references is used up."""


def _matched(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _described(error: ValidationError) -> tuple[str, str]:
    return error.json_path, error.message[:_MAX_ERROR_CHARACTERS]
