"""Holding a JSON value to a JSON Schema that is somebody else's.

The schema is a tenant's, or a tool server's, and the process is everybody's. So nothing is fetched (a `$ref` that leads
out of the schema is a mistake in it), and what could take for ever is bounded: patterns by time, references by number.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from holdfast.domain.errors import InvalidInput

#: How many mistakes are named.
_MAX_ERRORS = 10
_MAX_ERROR_CHARACTERS = 300

#: How many references are followed for one value, and how many seconds one pattern may take.
_MAX_REFERENCES = 10_000
_PATTERN_TIMEOUT_S = 0.2


class Malformed(Exception):
    """A value that does not fit. `errors`: JSON paths, `$` for the whole, and what is wrong there."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" for path, what in errors))
        self.errors = errors


class Schema:
    """A JSON Schema (2020-12, without `patternProperties`) that values are held to.

    Raises:
        InvalidInput: it is not a valid schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            Draft202012Validator.check_schema(schema)
            self.text = json.dumps(schema, ensure_ascii=False, sort_keys=True)
        except SchemaError as error:
            what = error.message[:_MAX_ERROR_CHARACTERS]
            raise InvalidInput("schema", f"It is not a valid JSON Schema: {what}") from None
        except RecursionError:
            raise InvalidInput("schema", "It is nested too deeply.") from None
        if '"patternProperties":' in self.text:
            raise InvalidInput("schema", "patternProperties are not supported; name the properties.")
        self._schema = schema

    def check(self, value: Any) -> None:
        """Hold a JSON value to the schema.

        Raises:
            Malformed: it does not fit.
            InvalidInput: the schema can't be applied: a `$ref` leads nowhere or round and round, or a pattern takes
                too long.
        """
        try:
            errors = list(itertools.islice(self._validator().iter_errors(value), _MAX_ERRORS))
        except Unresolvable as error:
            raise InvalidInput("schema", f"It refers to something that is not in it: {error.ref!r}") from None
        except (RecursionError, _TooCostly):
            raise InvalidInput("schema", "It refers to itself without end, or too often.") from None
        except (TimeoutError, regex.error):
            raise InvalidInput("schema", "A pattern of it is broken, or takes too long.") from None
        if errors:
            raise Malformed([_described(error) for error in sorted(errors, key=lambda error: error.json_path)])

    def _validator(self) -> Any:
        """A validator with a budget of its own."""
        spent = itertools.count()

        def followed(validator: Any, reference: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
            if next(spent) >= _MAX_REFERENCES:
                raise _TooCostly
            yield from Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema)

        keywords = {"$ref": followed, "$dynamicRef": followed, "pattern": _matched}
        bounded = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]  # its stubs leave it out
        # With a registry of its own, the validator fetches nothing.
        return bounded(self._schema, registry=Registry())


class _TooCostly(Exception):
    """The budget of references is used up."""


def _matched(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _described(error: ValidationError) -> tuple[str, str]:
    return error.json_path, error.message[:_MAX_ERROR_CHARACTERS]
