"""Structured output: a JSON Schema in, a value that fits it out, whichever model answers.

The schema stands in the prompt: not every provider can be given one, and a fallback must not change what is asked. The
answer is checked here in any case. Nothing is fetched: a `$ref` that leads out of the schema is a mistake in it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from holdfast.domain.errors import InvalidInput
from holdfast.domain.messages import ChatMessage

#: How often an answer is sent back with what is wrong with it.
MAX_REPAIRS = 2

#: How many mistakes of an answer are named, to the model and in the end to the caller.
_MAX_ERRORS = 10
_MAX_ERROR_CHARACTERS = 300

_FENCED = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


class Malformed(Exception):
    """An answer that does not fit. `errors`: JSON paths, `$` for the whole, and what is wrong there."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" for path, what in errors))
        self.errors = errors


class Schema:
    """A JSON Schema (2020-12) that answers are held to.

    Raises:
        InvalidInput: it is not a valid schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise InvalidInput(
                "schema", f"It is not a valid JSON Schema: {error.message[:_MAX_ERROR_CHARACTERS]}"
            ) from None
        except RecursionError:
            raise InvalidInput("schema", "It is nested too deeply.") from None
        # With a registry of its own, the validator fetches nothing.
        self._validator = Draft202012Validator(schema, registry=Registry())
        self.text = json.dumps(schema, ensure_ascii=False, sort_keys=True)

    def read(self, answer: str) -> Any:
        """The value that an answer holds, without the fence around it.

        Raises:
            Malformed: it is not JSON, or does not fit the schema.
            InvalidInput: the schema can't be applied: a `$ref` leads nowhere, or round and round.
        """
        value = _parse(answer)
        try:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: error.json_path)
        except Unresolvable as error:
            raise InvalidInput("schema", f"It refers to something that is not in it: {error.ref!r}") from None
        except (RecursionError, re.error):
            raise InvalidInput("schema", "It can't be applied: a $ref goes round, or a pattern is broken.") from None
        if errors:
            raise Malformed([_described(error) for error in errors[:_MAX_ERRORS]])
        return value


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
    fenced = _FENCED.search(answer)
    try:
        return json.loads(fenced.group(1) if fenced else answer, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed([("$", f"it is not JSON: {error}")]) from None


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _described(error: ValidationError) -> tuple[str, str]:
    return error.json_path, error.message[:_MAX_ERROR_CHARACTERS]
