"""What clients of OpenAI's APIs send of a conversation, read into entries: items of Responses, messages of chat."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from holdfast.domain.errors import InvalidInput
from holdfast.domain.exchanges import Entry, Kind, call_of_item
from holdfast.domain.storable import is_storable

Json = dict[str, Any]

#: What a client notes beside a request, within OpenAI's limits.
Metadata = Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)]

#: Items of the agent's, which tell where in a conversation their client is, and nothing else.
_OF_THE_AGENT = frozenset({"mcp_approval_request", "mcp_call", "mcp_list_tools", "reasoning"})

#: What looks like an id, of ours or of somebody else's.
_IS_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")

_NO_SYSTEM = "What an agent is told is its operator's to say, in its prompt: send no {role} message."


def read_items(given: str | Sequence[Json]) -> tuple[Entry, ...]:
    """The `input` of a response.

    Raises:
        InvalidInput: something in it can't be taken.
    """
    if isinstance(given, str):
        return (Entry(Kind.USER, given),)
    return tuple(_read_item(item, f"input.{place}") for place, item in enumerate(given))


def read_messages(given: Sequence[Json]) -> tuple[Entry, ...]:
    """The `messages` of a chat completion.

    Raises:
        InvalidInput: something in them can't be taken.
    """
    entries = [entry for place, one in enumerate(given) for entry in _read_message(one, f"messages.{place}")]
    return tuple(entries)


def read_functions(given: Sequence[Json] | None, *, nested: bool) -> list[Json]:
    """The `tools` of a request as functions; `nested`: each under its own key, as in chat completions.

    Raises:
        InvalidInput: one is no function.
    """
    found = []
    for place, tool in enumerate(given or ()):
        function = tool.get("function") if nested else tool
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise InvalidInput(f"tools.{place}.type", "Only functions of your own can be offered: type function.")
        found.append(function)
    return found


def user_of(others: Json | None) -> str | None:
    """Whom of its users a client says that it speaks for.

    Raises:
        InvalidInput: it names them by something else than a text, which would tell nobody apart.
    """
    for name in ("safety_identifier", "user"):
        named = (others or {}).get(name)
        if not isinstance(named, str | None):
            raise InvalidInput(name, "It must be a text.")
        if named:
            return named
    return None


def _read_item(item: Json, field: str) -> Entry:
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str):
        raise InvalidInput(f"{field}.type", "It must say what the item is.")
    if kind == "message":
        return _message_item(item, field)
    if kind == "function_call":
        return Entry(Kind.CALL, id=_id(item, "call_id", field))
    if kind == "function_call_output":
        return Entry(Kind.OUTPUT, _text(item.get("output"), f"{field}.output"), _id(item, "call_id", field))
    if kind == "mcp_approval_response":
        return _approval(item, field)
    if kind == "item_reference":
        return _reference(_id(item, "id", field))
    if kind in _OF_THE_AGENT:
        return Entry(Kind.AGENT, id=_optional_id(item, field))
    raise InvalidInput(f"{field}.type", "Items of this type are not taken.")


def _message_item(item: Json, field: str) -> Entry:
    role, text = item.get("role"), _text(item.get("content"), f"{field}.content")
    if role == "user":
        return Entry(Kind.USER, text)
    if role == "assistant":
        return Entry(Kind.AGENT, text, _optional_id(item, field))
    raise _bad_role(role, field)


def _approval(item: Json, field: str) -> Entry:
    approve, reason = item.get("approve"), item.get("reason")
    if not isinstance(approve, bool):
        raise InvalidInput(f"{field}.approve", "It must be true or false.")
    if not (reason is None or (isinstance(reason, str) and len(reason) <= 2000 and is_storable(reason))):
        raise InvalidInput(f"{field}.reason", "It must be a text of at most 2000 characters that can be stored.")
    return Entry(Kind.APPROVAL, reason or "", _id(item, "approval_request_id", field), approve)


def _reference(item_id: str) -> Entry:
    call_id = call_of_item(item_id) if item_id.startswith("fc_") else None
    return Entry(Kind.AGENT, id=item_id) if call_id is None else Entry(Kind.CALL, id=call_id)


def _read_message(message: Json, field: str) -> Iterator[Entry]:
    role = message.get("role")
    text = _text(message.get("content"), f"{field}.content", optional=role == "assistant")
    if role == "user":
        yield Entry(Kind.USER, text)
    elif role == "tool":
        yield Entry(Kind.OUTPUT, text, _id(message, "tool_call_id", field))
    elif role == "assistant":
        calls = message.get("tool_calls") or []
        # Also where nothing was said: what follows is new, and what comes before it is not.
        if text or not calls:
            yield Entry(Kind.AGENT, text)
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise InvalidInput(f"{field}.tool_calls", "They must be a list of calls.")
        for place, call in enumerate(calls):
            yield Entry(Kind.CALL, id=_id(call, "id", f"{field}.tool_calls.{place}"))
    else:
        raise _bad_role(role, field)


def _bad_role(role: Any, field: str) -> InvalidInput:
    if role in ("system", "developer"):
        return InvalidInput(f"{field}.role", _NO_SYSTEM.format(role=role))
    return InvalidInput(f"{field}.role", "Messages of this role are not taken.")


def _text(content: Any, field: str, *, optional: bool = False) -> str:
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if not isinstance(content, list):
        raise InvalidInput(field, "It must be a text, or a list of texts.")
    return "".join(_part(part, f"{field}.{place}") for place, part in enumerate(content))


def _part(part: Any, field: str) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(part, dict) or part.get("type") not in ("text", "input_text", "output_text"):
        raise InvalidInput(field, "Only text is taken: no images, audio or files.")
    if not isinstance(text, str):
        raise InvalidInput(f"{field}.text", "It must be a text.")
    return text


def _id(item: Json, name: str, field: str) -> str:
    found = item.get(name)
    if not isinstance(found, str) or not _IS_ID.fullmatch(found):
        raise InvalidInput(f"{field}.{name}", "It must be an id.")
    return found


def _optional_id(item: Json, field: str) -> str | None:
    return None if item.get("id") is None else _id(item, "id", field)
