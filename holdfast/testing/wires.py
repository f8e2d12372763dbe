"""The wire formats that the scripted provider speaks, and its replies as they are said in each.

`whole_stream(Text("one two"), "anthropic")` is what a client would receive: to cut at each byte of it, to compare with.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.llm.openai_wire import Answer, Call, completion, count_tokens, events
from holdfast.testing import anthropic_wire, embeddings_wire, ollama_wire
from holdfast.testing.replies import Text, ToolCalls

#: How a request came: as a chat in one of three formats, or for embeddings.
Wire = Literal["openai", "anthropic", "ollama", "embeddings"]

#: A request which all chat formats understand, and which asks for a stream and for what it took.
QUESTION: dict[str, Any] = {
    "model": "model",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass(frozen=True)
class Format:
    """A wire format: where it is spoken, and how an answer or an error is said to a request's body."""

    wire: Wire
    path: str
    stream_type: str
    is_streamed: Callable[[dict[str, Any]], bool]
    whole: Callable[[Answer, dict[str, Any]], dict[str, Any]]
    events: Callable[[Answer, dict[str, Any]], Iterable[bytes]]
    error: Callable[[int, str], dict[str, Any]]


def stream_events(reply: Text | ToolCalls, wire: Wire = "openai", body: dict[str, Any] = QUESTION) -> list[bytes]:
    """The events of a reply's stream: server-sent ones, or Ollama's lines. Embeddings have none.

    `body`: that of the request, which names the model and says whether usage is wanted.
    """
    return list(_FIRST[wire].events(said(reply, body), body))


def whole_stream(reply: Text | ToolCalls, wire: Wire = "openai", body: dict[str, Any] = QUESTION) -> bytes:
    """The body of a reply's stream, all events of it."""
    return b"".join(stream_events(reply, wire, body))


def said(reply: Text | ToolCalls, body: dict[str, Any]) -> Answer:
    """The reply as the answer to a request, with the tokens of both counted."""
    calls = _calls(reply) if isinstance(reply, ToolCalls) else []
    taken = count_tokens(reply.text or [call.arguments for call in calls])
    asked = count_tokens(body.get("messages") or embeddings_wire.texts(body))
    return Answer(str(body.get("model")), reply.text, calls, asked, taken, sends_usage=reply.usage)


def _calls(reply: ToolCalls) -> list[Call]:
    ids = reply.ids or [f"call_{number}" for number in range(1, len(reply.calls) + 1)]
    return [
        Call(tool, arguments if isinstance(arguments, str) else json.dumps(arguments), call_id, reply.as_objects)
        for (tool, arguments), call_id in zip(reply.calls, ids, strict=True)
    ]


def _openai_events(answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
    return events(answer, include_usage=bool((body.get("stream_options") or {}).get("include_usage")))


def _openai_error(status: int, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "scripted", "code": status}}


def _is_streamed_if_asked(body: dict[str, Any]) -> bool:
    return bool(body.get("stream"))


def _is_streamed_unless_asked(body: dict[str, Any]) -> bool:
    return bool(body.get("stream", True))


OPENAI = Format(
    wire="openai",
    path="/v1/chat/completions",
    stream_type="text/event-stream",
    is_streamed=_is_streamed_if_asked,
    whole=lambda answer, _: completion(answer),
    events=_openai_events,
    error=_openai_error,
)
ANTHROPIC = Format(
    wire="anthropic",
    path="/v1/messages",
    stream_type="text/event-stream",
    is_streamed=_is_streamed_if_asked,
    whole=lambda answer, _: anthropic_wire.message(answer),
    events=lambda answer, _: anthropic_wire.events(answer),
    error=anthropic_wire.error,
)
OLLAMA = Format(
    wire="ollama",
    path="/api/chat",
    stream_type="application/x-ndjson",
    is_streamed=_is_streamed_unless_asked,
    whole=lambda answer, _: ollama_wire.chat(answer),
    events=lambda answer, _: ollama_wire.lines(answer),
    error=ollama_wire.error,
)
OPENAI_EMBEDDINGS = Format(
    wire="embeddings",
    path="/v1/embeddings",
    stream_type="application/json",
    is_streamed=lambda _: False,
    whole=embeddings_wire.openai_embeddings,
    events=lambda answer, body: (),
    error=_openai_error,
)
OLLAMA_EMBEDDINGS = Format(
    wire="embeddings",
    path="/api/embed",
    stream_type="application/json",
    is_streamed=lambda _: False,
    whole=embeddings_wire.ollama_embeddings,
    events=lambda answer, body: (),
    error=ollama_wire.error,
)

FORMATS = (OPENAI, ANTHROPIC, OLLAMA, OPENAI_EMBEDDINGS, OLLAMA_EMBEDDINGS)

_FIRST: dict[Wire, Format] = {format_.wire: format_ for format_ in reversed(FORMATS)}
