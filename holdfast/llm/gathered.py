"""One answer out of many chunks: LiteLLM brings every provider's stream into OpenAI's form, or nearly."""

import json
from dataclasses import dataclass, field
from typing import Any

from holdfast.domain.messages import RequestedToolCall


@dataclass
class _Call:
    provider_id: str | None
    tool: str
    arguments: list[str] = field(default_factory=list)


class Gathered:
    """What has come of a stream so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self.usage: Any = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def tool_calls(self) -> tuple[RequestedToolCall, ...]:
        return tuple(RequestedToolCall(call.tool, "".join(call.arguments) or "{}") for call in self._calls)

    def add(self, chunk: Any) -> str:
        """Take a chunk in; answers with the text that it added."""
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return ""
        delta = chunk.choices[0].delta
        for part in delta.tool_calls or ():
            self._add_call(part)
        text = delta.content or ""
        self._texts.append(text)
        return text

    def _add_call(self, part: Any) -> None:
        name, said = part.function.name or "", as_json_text(part.function.arguments)
        call = self._by_index.get(part.index)
        # Some servers number every call 0: a name and another id, or a name after arguments, begin a new one.
        if call is None or (name and (part.id != call.provider_id or call.arguments)):
            call = self._by_index[part.index] = _Call(part.id, name)
            self._calls.append(call)
        call.arguments.append(said)


def as_json_text(arguments: Any) -> str:
    """A call's arguments as text: OpenAI sends JSON text, others an object."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments, ensure_ascii=False)


def requested(call: Any) -> RequestedToolCall:
    """A tool call of an answer that came whole."""
    return RequestedToolCall(call.function.name or "", as_json_text(call.function.arguments) or "{}")
