"""Structured output: a JSON Schema in, a value that fits it out, whichever model answers.

The schema stands in the prompt: not every provider can be given one, and a fallback must not change what is asked. The
answer is checked here in any case.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from holdfast.domain.errors import InvalidInput
from holdfast.domain.json_schema import JsonSchema, SchemaUnusable
from holdfast.domain.messages import ChatMessage

#: How often an answer is sent back with what is wrong with it.
MAX_REPAIRS = 2

#: What stands before the schema in the prompt.
INSTRUCTION = "Answer with one JSON value that is valid under this JSON Schema, and nothing else:\n"

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
    """A JSON Schema (see `JsonSchema`) that answers are held to.

    Raises:
        InvalidInput: it is not a valid schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            self._schema = JsonSchema(schema)
        except SchemaUnusable as unusable:
            raise InvalidInput("schema", str(unusable)) from None
        self.text = self._schema.text

    def read(self, answer: str) -> Any:
        """The value that an answer holds, without the fence around it.

        Raises:
            Malformed: it is not JSON, or does not fit the schema.
            InvalidInput: the schema can't be applied: a `$ref` leads nowhere or round and round, or a pattern takes
                too long.
        """
        value = _parse(answer)
        try:
            errors = self._schema.errors(value)
        except SchemaUnusable as unusable:
            raise InvalidInput("schema", str(unusable)) from None
        if errors:
            raise Malformed(errors)
        return value


def instructed(messages: Sequence[ChatMessage], schema: Schema) -> list[ChatMessage]:
    """The conversation, and what its answer must look like."""
    return [*messages, {"role": "system", "content": f"{INSTRUCTION}{schema.text}"}]


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
