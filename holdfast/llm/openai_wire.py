"""OpenAI's chat completions as they go over the wire: what a provider answers, whole or as a stream of chunks.

For the two servers that speak it, the demo model and the scripted provider of the tests; the latter says the same
`Answer` in other formats too.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_CREATED = 1_700_000_000

_WORDS = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True)
class Call:
    """A tool call of an answer; `id` None leaves it out, as some providers do.

    `as_object`: the arguments go out as a JSON object instead of text, as some servers send them.
    """

    tool: str
    arguments: str
    id: str | None
    as_object: bool = False

    @property
    def value(self) -> Any:
        """The arguments as a value; text that is no JSON stays text."""
        try:
            return json.loads(self.arguments)
        except ValueError:
            return self.arguments


@dataclass(frozen=True)
class Answer:
    """What a provider says: text, tool calls, or both. Without `sends_usage` it does not say what it took."""

    model: str
    text: str = ""
    calls: Sequence[Call] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sends_usage: bool = True

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.calls else "stop"

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


def count_tokens(value: Any) -> int:
    """A rough count: four characters a token, at least one."""
    text = value if isinstance(value, str) else json.dumps(value)
    return max(1, len(text) // 4)


def words(text: str) -> list[str]:
    """A text in the pieces in which it is streamed: put together, they are the text."""
    return _WORDS.findall(text)


def completion(answer: Answer) -> dict[str, Any]:
    """The answer as one `chat.completion`."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [_call(call) for call in answer.calls]
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    usage = {"usage": answer.usage} if answer.sends_usage else {}
    return {**_envelope(answer, "chat.completion"), "choices": [choice], **usage}


def events(answer: Answer, *, include_usage: bool) -> Iterator[bytes]:
    """The answer as server-sent events, a word or a tool call each, ended by `[DONE]`."""
    yield _event(answer, {"role": "assistant", "content": ""})
    for word in words(answer.text):
        yield _event(answer, {"content": word})
    for index, call in enumerate(answer.calls):
        yield _event(answer, {"tool_calls": [{"index": index, **_call(call)}]})
    yield _event(answer, {}, answer.finish_reason)
    if include_usage and answer.sends_usage:
        yield _data({**_envelope(answer, "chat.completion.chunk"), "choices": [], "usage": answer.usage})
    yield b"data: [DONE]\n\n"


def _event(answer: Answer, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _data({**_envelope(answer, "chat.completion.chunk"), "choices": [choice]})


def _envelope(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": _CREATED, "model": answer.model}


def _call(call: Call) -> dict[str, Any]:
    identified = {} if call.id is None else {"id": call.id}
    arguments = call.value if call.as_object else call.arguments
    return {**identified, "type": "function", "function": {"name": call.tool, "arguments": arguments}}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
