"""Anthropic's messages as they go over the wire: an answer whole, as a stream of events, or an error."""

import json
from collections.abc import Iterator
from typing import Any

from holdfast.llm.openai_wire import Answer, Call, words

_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def message(answer: Answer) -> dict[str, Any]:
    """The answer as one `message`. Arguments that are no JSON are sent as the text they are."""
    said = [{"type": "text", "text": answer.text}] if answer.text else []
    asked = [{**_tool_use(call), "input": call.value} for call in answer.calls]
    usage = {"usage": _usage(answer)} if answer.sends_usage else {}
    return {**_envelope(answer), "content": said + asked, **_stop(answer), **usage}


def events(answer: Answer) -> Iterator[bytes]:
    """The answer as server-sent events: a block for the text, a word each, and one for each tool call."""
    started = {"usage": {**_usage(answer), "output_tokens": 1}} if answer.sends_usage else {}
    begun = {**_envelope(answer), "content": [], "stop_reason": None, "stop_sequence": None, **started}
    yield _event("message_start", message=begun)
    yield _event("ping")
    for index, block in enumerate(_blocks(answer)):
        yield from _block(index, *block)
    usage = {"usage": {"output_tokens": answer.completion_tokens}} if answer.sends_usage else {}
    yield _event("message_delta", delta=_stop(answer), **usage)
    yield _event("message_stop")


def error(status: int, text: str) -> dict[str, Any]:
    """What is sent with a status that is not 200."""
    otherwise = "api_error" if status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {"type": _ERRORS.get(status, otherwise), "message": text}}


def _blocks(answer: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each block as it starts, and its deltas."""
    if answer.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words(answer.text)]
    for call in answer.calls:
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *words(call.arguments)]]
        yield {**_tool_use(call), "input": {}}, deltas


def _block(index: int, block: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[bytes]:
    yield _event("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _envelope(answer: Answer) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": answer.model}


def _tool_use(call: Call) -> dict[str, Any]:
    identified = {} if call.id is None else {"id": call.id}
    return {"type": "tool_use", **identified, "name": call.tool}


def _stop(answer: Answer) -> dict[str, Any]:
    return {"stop_reason": "tool_use" if answer.calls else "end_turn", "stop_sequence": None}


def _usage(answer: Answer) -> dict[str, int]:
    return {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}


def _event(kind: str, **data: Any) -> bytes:
    value = json.dumps({"type": kind, **data}, separators=(",", ":"))
    return f"event: {kind}\ndata: {value}\n\n".encode()
