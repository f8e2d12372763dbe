"""Tools of a client: declared with a message, offered to the model beside the agent's own, and run by the client.

The model's call of one is handed over: the run ends, and the client's next message brings the output. In the ledger
such a call is approved, since whoever may send the message may offer the tool; it is dispatched and succeeds in the
transaction that stores its output, and is withdrawn when the conversation goes on without one.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from holdfast.domain.errors import InvalidInput
from holdfast.domain.json_schema import JsonSchema, SchemaUnusable
from holdfast.domain.storable import is_storable

#: How many tools a message may bring, and how long their declarations may be together, as JSON.
MAX_TOOLS = 64
MAX_CHARACTERS = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}

#: What the ledger says of the policy on such a call.
RULE = "a tool of the client"

#: What the model is told of a call whose output never came.
WENT_ON = "The client went on without running this call."


@dataclass(frozen=True)
class ClientTool:
    """A tool as its client declares it. `parameters`: the JSON Schema of its arguments, an object's."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ClientOutput:
    """What a client says that a call of its tool brought. Data of the client's, and no more to be trusted than that."""

    tool_call_id: str
    output: str

    @property
    def result(self) -> str:
        """The output as JSON text. What reads like JSON, and can't be shown as such to everybody, is a mere text."""
        return self.output if _is_plain_json(self.output) else json.dumps(self.output, ensure_ascii=False)


def _is_plain_json(text: str) -> bool:
    try:
        value = json.loads(text)
        # Python reads NaN, Infinity and 1e999, which are no JSON.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return is_storable(value)


def read_tools(declared: Collection[Mapping[str, Any]]) -> tuple[ClientTool, ...]:
    """Tools as a client declares them: each with `name`, and maybe `description` and `parameters`.

    Raises:
        InvalidInput: a name or a schema can't be taken, or there are too many.
    """
    if len(declared) > MAX_TOOLS:
        raise InvalidInput("tools", f"There are {len(declared)} tools; {MAX_TOOLS} are allowed.")
    if not is_storable(list(declared)):
        raise InvalidInput("tools", "They hold a NUL or half a surrogate pair, or are nested too deeply.")
    # Before any schema is looked at, which costs time.
    if len(json.dumps(list(declared))) > MAX_CHARACTERS:
        raise InvalidInput("tools", f"They are longer than {MAX_CHARACTERS} characters.")
    tools = tuple(_read(place, one) for place, one in enumerate(declared))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidInput("tools", "Two tools have the same name.")
    return tools


def as_stored(tools: Collection[ClientTool]) -> list[dict[str, Any]]:
    """Tools as JSON."""
    return [asdict(tool) for tool in tools]


def from_stored(stored: Any) -> tuple[ClientTool, ...]:
    """Tools out of JSON; None: there are none."""
    return tuple(ClientTool(**one) for one in stored or ())


def clashing(tools: Collection[ClientTool], patterns: Collection[str]) -> str | None:
    """The name of a tool that a rule of the agent's policy is about; None: there is none."""
    return next((tool.name for tool in tools if any(fnmatchcase(tool.name, pattern) for pattern in patterns)), None)


def _read(place: int, declared: Mapping[str, Any]) -> ClientTool:
    field = f"tools.{place}"
    name, description = declared.get("name"), declared.get("description") or ""
    parameters = declared.get("parameters") or _ANYTHING
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"{field}.name", "A tool's name has 1 to 64 letters, digits, _ and -.")
    if not isinstance(description, str):
        raise InvalidInput(f"{field}.description", "It must be a text.")
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise InvalidInput(f"{field}.parameters", "They must be a JSON Schema with type object.")
    try:
        JsonSchema(parameters)
    except SchemaUnusable as unusable:
        raise InvalidInput(f"{field}.parameters", str(unusable)) from None
    return ClientTool(name, description, parameters)
