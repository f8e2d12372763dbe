"""The demo model: an OpenAI-compatible server without a model, so that `holdfast dev` does its job without an API key.

It picks a tool by the words it shares with the message, fills the arguments from the message, and puts results into a
sentence; asked for JSON, it makes up the least that fits. It says in every reply that it is a demo.
`holdfast.config.models_yaml` refuses it outside of `holdfast dev`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.llm.openai_wire import Answer, Call, completion, count_tokens, events
from holdfast.llm.structured import INSTRUCTION

MODEL = "holdfast-demo"

#: Begins every reply, so that nobody takes it for a model's.
MARK = "[demo model]"

_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"[\"“']([^\"”']+)[\"”']")
_REASON = re.compile(r"\b(?:because|since|reason:?)\s+(.+)", re.IGNORECASE | re.DOTALL)
# Bounded, since it is tried at each place of a text that may be long.
_HUMAN = re.compile(
    r"\b(?:are you|you\Wre|is this|(?:talking|speaking|chatting) (?:to|with))\b.{0,80}?"
    r"\b(?:human|ai|bot|robot|person|machine|real)\b",
    re.IGNORECASE | re.DOTALL,
)

#: A list that is made up has no more items than this.
_MOST_ITEMS = 100

#: A number with more digits than this names nothing.
_MOST_DIGITS = 15

_FILLERS = frozenset(
    "a an and for i is it me my of on or please the this to was what with you your".split()  # noqa: SIM905 -- a list of words reads better as a sentence
)


def build_demo_model() -> Starlette:
    """The demo model as an application, to be served under any address; its API's base path is `/v1`."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", _complete, methods=["POST"]),
            Route("/v1/models", _models),
        ]
    )


async def _models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "holdfast"}]})


async def _complete(request: Request) -> Response:
    body = await request.json()
    answer = respond(body)
    if not body.get("stream"):
        return JSONResponse(completion(answer))
    include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return StreamingResponse(events(answer, include_usage=include_usage), media_type="text/event-stream")


def respond(body: dict[str, Any]) -> Answer:
    """The answer to a chat completions request: the same for the same request."""
    messages = body["messages"]
    tools = [tool["function"] for tool in body.get("tools") or ()]
    calls: list[Call] = []
    schema = _schema_in(messages)
    if schema is not None:
        text = json.dumps(_sample(schema))
    elif messages[-1]["role"] == "tool":
        text = _about_results(list(_latest_results(messages)))
    else:
        asked = _text_of(messages[-1])
        text, calls = _about_request(asked, tools, may_call=body.get("tool_choice") != "none")
    marked = f"{MARK} {text}" if text and schema is None else text
    said = count_tokens(marked or [call.arguments for call in calls])
    return Answer(MODEL, marked, calls, count_tokens([messages, tools]), said)


def _schema_in(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The JSON Schema that the answer is to fit, as `holdfast.llm.structured` says it; None: it may be any text."""
    said = (_text_of(message) for message in messages if message["role"] == "system")
    found = next((text.partition(INSTRUCTION)[2] for text in said if text.startswith(INSTRUCTION)), None)
    return None if found is None else json.loads(found)


def _sample(schema: Any) -> Any:
    """The least that fits a schema, if it is a simple one."""
    if not isinstance(schema, dict):
        return MARK
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    match schema.get("type"):
        case "object":
            parts = schema.get("properties", {})
            return {name: _sample(parts.get(name)) for name in schema.get("required", [])}
        case "array":
            return [_sample(schema.get("items"))] * min(schema.get("minItems", 0), _MOST_ITEMS)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean" | "null" as kind:
            return {"boolean": False, "null": None}[kind]
        case _:
            return MARK


def _about_request(asked: str, tools: list[dict[str, Any]], *, may_call: bool) -> tuple[str, list[Call]]:
    if _HUMAN.search(asked):
        return "I am an AI system, not a person: a demo that stands in for a real model.", []
    tool = _best(asked, tools) if may_call else None
    if tool is None:
        return _small_talk(asked, tools), []
    arguments, missing = _fill(asked, tool["parameters"])
    if missing:
        return f"To {_words(tool['name'])} I need the {_words(missing[0])}. Which one is it?", []
    return "", [Call(tool["name"], json.dumps(arguments), "call_1")]


def _best(asked: str, tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The tool that shares the most words with the message, its name counting more than its description."""
    said = _stems(asked)
    scored = [(_score(said, tool), -position) for position, tool in enumerate(tools)]
    score, position = max(scored, default=(0, 0))
    return tools[-position] if score >= _NAME_WEIGHT else None


_NAME_WEIGHT = 3


def _score(said: set[str], tool: dict[str, Any]) -> int:
    in_name = said & _stems(_words(tool["name"]))
    in_description = said & _stems(tool.get("description") or "")
    return _NAME_WEIGHT * len(in_name) + len(in_description - in_name)


def _fill(asked: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments found in the message, and the names of required ones that are not there."""
    numbers = (number for number in _NUMBER.findall(asked) if len(number) <= _MOST_DIGITS)
    required = parameters.get("required") or []
    arguments: dict[str, Any] = {}
    for name, schema in (parameters.get("properties") or {}).items():
        value = _value(asked, name, schema, numbers)
        if value is not None:
            arguments[name] = value
    return arguments, [name for name in required if name not in arguments]


def _value(asked: str, name: str, schema: dict[str, Any], numbers: Iterator[str]) -> Any:
    if "enum" in schema:
        return next((option for option in schema["enum"] if str(option).lower() in asked.lower()), None)
    match schema.get("type"):
        case "integer":
            found = next((number for number in numbers if "." not in number), None)
            return None if found is None else int(found)
        case "number":
            found = next(numbers, None)
            return None if found is None else float(found)
        case "string":
            return _string(asked, name)
        case _:
            return None


def _string(asked: str, name: str) -> str | None:
    pattern = _REASON if name == "reason" else _QUOTED
    found = pattern.search(asked)
    return None if found is None else found.group(1).strip(" .!")


def _small_talk(asked: str, tools: list[dict[str, Any]]) -> str:
    can = "; ".join(_words(tool["name"]) for tool in tools)
    offer = f" I can: {can}." if can else ""
    about = asked.strip()
    shown = about if len(about) <= 80 else f"{about[:77]}..."
    return f"You wrote: “{shown}”. I only match words, so I have little to say to that.{offer}"


def _latest_results(messages: list[dict[str, Any]]) -> Iterator[str]:
    position = len(messages)
    while position and messages[position - 1]["role"] == "tool":
        position -= 1
    yield from (_text_of(message) for message in messages[position:])


def _about_results(results: list[str]) -> str:
    return " ".join(_about_result(result) for result in results)


def _about_result(result: str) -> str:
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        return f"The tool answered: {result[:500]}"
    if isinstance(value, dict) and set(value) == {"error"}:
        return f"That did not work out. I was told: {value['error']}"
    return f"Done. Here is what I found: {_as_words(value)}."


def _as_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(name))}: {_as_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(_as_words(part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "yes", False: "no"}[value]
    return str(value)


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _stems(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower())} - _FILLERS
