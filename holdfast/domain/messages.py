"""Messages, and the transcript a model is given."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from holdfast.domain.client_tools import ClientOutput, ClientTool

#: What OpenAI and Anthropic take in the name of a function.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")

#: The longest text a message may have, in characters. About 25,000 tokens: beyond it, send a document, not a message.
MAX_TEXT_CHARACTERS = 100_000


class Role(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Message:
    """A message as it is stored."""

    message_id: str
    conversation_id: str
    run_id: str
    role: Role
    text: str
    created_at: datetime


@dataclass(frozen=True)
class RequestedToolCall:
    """A tool call as the model asked for it. `arguments` is the raw JSON text, which may be broken.

    The id that the provider gave it is dropped: some give none, or the same one twice. In the transcript a call goes by
    its id in the ledger.
    """

    tool: str
    arguments: str


@dataclass(frozen=True)
class ToolExchange:
    """One call of a past step and what the model was told of it; `result` is None while nothing is known."""

    tool_call_id: str
    call: RequestedToolCall
    result: str | None


@dataclass(frozen=True)
class PastStep:
    """One model call of a past or the present run: its text, and the tool calls it asked for."""

    text: str
    exchanges: tuple[ToolExchange, ...] = ()
    step: int = 0


@dataclass(frozen=True)
class JoinedMessage:
    """What the user wrote while a run was going on; it joined the run before its model call number `step`."""

    step: int
    text: str


@dataclass(frozen=True)
class PastRun:
    """One run of the transcript: what the user wrote, the steps that asked for tools, and the reply, if any."""

    user_text: str
    steps: tuple[PastStep, ...] = ()
    reply: str | None = None
    joined: tuple[JoinedMessage, ...] = ()


def is_json(text: str) -> bool:
    """Whether a model's arguments can be read at all; whether they fit a tool is another question."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


#: A message in OpenAI's chat form, which is what LiteLLM takes for every provider.
ChatMessage = dict[str, Any]

#: What the model is told of a call that was never run, so that no call stands in a transcript without a result.
NO_RESULT = "This call was not run."

#: What stands in place of what a user said, where the transcript begins with outputs of tools.
ONLY_OUTPUTS = "[Earlier messages are left out.]"

#: What the model is told of a call that was handed to its tool, and of which nothing was heard.
OUTCOME_UNKNOWN = "The outcome is unknown: the call may or may not have taken effect. Do not repeat it; tell the user."


def as_chat(system_prompt: str, runs: list[PastRun]) -> list[ChatMessage]:
    """The transcript in chat form, valid for every provider: each tool call is followed by exactly one result."""
    chat: list[ChatMessage] = [{"role": "system", "content": system_prompt}]
    for run in runs:
        # Outputs of a client's tools, which stand with their calls, may come without a word of the user's. But for some
        # providers a user always begins.
        if run.user_text or len(chat) == 1:
            chat.append({"role": "user", "content": run.user_text or ONLY_OUTPUTS})
        waiting = list(run.joined)
        for step in run.steps:
            while waiting and waiting[0].step <= step.step:
                chat.append({"role": "user", "content": waiting.pop(0).text})
            chat.extend(_step_as_chat(step))
        chat.extend({"role": "user", "content": message.text} for message in waiting)
        if run.reply is not None:
            chat.append({"role": "assistant", "content": run.reply})
    return chat


def _step_as_chat(step: PastStep) -> list[ChatMessage]:
    calls = [
        {
            "id": exchange.tool_call_id,
            "type": "function",
            "function": {"name": _sendable_name(exchange.call.tool), "arguments": _an_object(exchange.call.arguments)},
        }
        for exchange in step.exchanges
    ]
    results: list[ChatMessage] = [
        {
            "role": "tool",
            "tool_call_id": exchange.tool_call_id,
            "content": NO_RESULT if exchange.result is None else exchange.result,
        }
        for exchange in step.exchanges
    ]
    return [{"role": "assistant", "content": step.text or None, "tool_calls": calls}, *results]


def _sendable_name(name: str) -> str:
    # Models make names up, such as `functions.pay`; sent back like that, each later request would be refused.
    return _NOT_IN_NAMES.sub("_", name)[:64] or "_"


def _an_object(arguments: str) -> str:
    """A call's arguments as some providers want them back, whatever the model wrote: as the text of a JSON object."""
    if not arguments.strip():
        return "{}"
    try:
        value = json.loads(arguments, parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = None
    return arguments if isinstance(value, dict) else json.dumps({"not_an_object": arguments}, ensure_ascii=False)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass(frozen=True)
class NewMessage:
    """A message to be accepted. `key` makes it accepted once within its tenant; None: every delivery is a new one.

    `client_tools` are offered to the model beside the agent's; `outputs` are of such that were called before, and may
    come without a text. `follows`: the run that must be the newest of the conversation. `history`: a digest of all that
    the client knows of the conversation, this message included, by which it finds it again. `said_at`: when it was
    said, where that may be long before it comes: what was asked since, it does not decide. `shown`: the confirmations,
    or the calls that they are about, which its writer was shown, where that is known: no others does it decide.
    """

    agent: str
    text: str
    conversation_id: str | None = None
    sender: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    client_tools: tuple[ClientTool, ...] = ()
    outputs: tuple[ClientOutput, ...] = ()
    follows: str | None = None
    history: str | None = None
    said_at: datetime | None = None
    shown: frozenset[str] | None = None
