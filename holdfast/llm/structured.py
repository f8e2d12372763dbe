"""Structured output: a JSON Schema in, a value that fits it out, whichever model answers.

The schema stands in the prompt: not every provider can be given one, and a fallback must not change what is asked. The
answer is checked here in any case.

The schema is a tenant's, and the process is everybody's. So nothing is fetched (a `$ref` that leads out of the schema
is a mistake in it), and what could take for ever is bounded: patterns by time, references by number.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from holdfast.domain.errors import InvalidInput
from holdfast.domain.messages import ChatMessage

#: How often an answer is sent back with what is wrong with it.
MAX_REPAIRS = 2

#: How many mistakes of an answer are named, to the model and in the end to the caller.
_MAX_ERRORS = 10
_MAX_ERROR_CHARACTERS = 300

#: How many references are followed for one answer, and how many seconds one pattern may take.
_MAX_REFERENCES = 10_000
_PATTERN_TIMEOUT_S = 0.2

#: A block of its own, to the fence on a line of its own: no JSON has a line that begins with a fence.
_BLOCK = re.compile(r"^[ \t]*```[\w-]*[ \t]*\n(.*?)\n[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"```(.*)```", re.DOTALL)
_NAMED = re.compile(r"```[\w-]+\s(.*)```", re.DOTALL)


class Malformed(Exception):
    """An answer that does not fit. `errors`: JSON paths, `$` for the whole, and what is wrong there."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" for path, what in errors))
        self.errors = errors


class Schema:
    """A JSON Schema (2020-12, without `patternProperties`) that answers are held to.

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

    def read(self, answer: str) -> Any:
        """The value that an answer holds, without the fence around it.

        Raises:
            Malformed: it is not JSON, or does not fit the schema.
            InvalidInput: the schema can't be applied: a `$ref` leads nowhere or round and round, or a pattern takes
                too long.
        """
        value = _parse(answer)
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
        return value

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


def instructed(messages: Sequence[ChatMessage], schema: Schema) -> list[ChatMessage]:
    """The conversation, and what its answer must look like."""
    wanted = f"Answer with one JSON value that is valid under this JSON Schema, and nothing else:\n{schema.text}"
    return [*messages, {"role": "system", "content": wanted}]


def sent_back(answer: str, malformed: Malformed) -> list[ChatMessage]:
    """What is added to the conversation after an answer that does not fit."""
    wrong = "\n".join(f"- {path}: {what}" for path, what in malformed.errors)
    mend = f"That answer can't be used:\n{wrong}\nAnswer again, with the corrected JSON value and nothing else."
    return [{"role": "assistant", "content": answer or "(nothing)"}, {"role": "user", "content": mend}]


def version_of(messages: Sequence[ChatMessage], schema: Schema) -> str:
    """A prompt's version, for a caller that names none: a digest of its system messages and its schema."""
    prompt = json.dumps([message for message in messages if message.get("role") == "system"], sort_keys=True)
    return hashlib.sha256(f"{prompt}\n{schema.text}".encode(errors="replace")).hexdigest()[:12]


def _parse(answer: str) -> Any:
    """The first reading that is JSON: the whole, a block in it, or what stands between its outermost fences."""
    wrong: Exception | None = None
    for candidate in _candidates(answer):
        try:
            return json.loads(candidate, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            wrong = wrong or error
    raise Malformed([("$", f"it is not JSON: {wrong}")])


def _candidates(answer: str) -> Iterator[str]:
    yield answer
    for fence in (_BLOCK, _FENCED, _NAMED):
        if (found := fence.search(answer)) is not None:
            yield found.group(1)


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _matched(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _described(error: ValidationError) -> tuple[str, str]:
    return error.json_path, error.message[:_MAX_ERROR_CHARACTERS]
