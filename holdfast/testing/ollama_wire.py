"""Ollama's own chat as it goes over the wire: an answer whole or as a stream of lines, an error, and a model's card."""

import json
from collections.abc import Iterator
from typing import Any

from holdfast.llm.openai_wire import Answer, Call, words

_CREATED = "2025-06-01T12:00:00.000000Z"


def chat(answer: Answer) -> dict[str, Any]:
    """The answer as one object. Arguments are objects; those that are no JSON are sent as the text they are."""
    asked = {"tool_calls": [_call(*numbered) for numbered in enumerate(answer.calls)]} if answer.calls else {}
    return {**_said(answer, answer.text, **asked), **_done(answer)}


def lines(answer: Answer) -> Iterator[bytes]:
    """The answer as lines of JSON, a word or a tool call each; the last says that it is done, and what it took."""
    for word in words(answer.text):
        yield _line({**_said(answer, word), "done": False})
    for index, call in enumerate(answer.calls):
        yield _line({**_said(answer, "", tool_calls=[_call(index, call)]), "done": False})
    yield _line({**_said(answer, ""), **_done(answer)})


def error(_: int, text: str) -> dict[str, Any]:
    """What is sent with a status that is not 200."""
    return {"error": text}


def card() -> dict[str, Any]:
    """What `/api/show` says of every model: it can call tools."""
    return {
        "template": "{{ .Tools }}{{ .Prompt }}",
        "details": {"format": "gguf", "family": "scripted"},
        "model_info": {"general.architecture": "scripted", "scripted.context_length": 32_768},
        "capabilities": ["completion", "tools"],
    }


def _said(answer: Answer, text: str, **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": text, **more}
    return {"model": answer.model, "created_at": _CREATED, "message": said}


def _done(answer: Answer) -> dict[str, Any]:
    usage = {"prompt_eval_count": answer.prompt_tokens, "eval_count": answer.completion_tokens}
    return {"done": True, "done_reason": "stop", "total_duration": 1_000_000, **(usage if answer.sends_usage else {})}


def _call(index: int, call: Call) -> dict[str, Any]:
    identified = {} if call.id is None else {"id": call.id}
    return {**identified, "function": {"index": index, "name": call.tool, "arguments": call.value}}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
