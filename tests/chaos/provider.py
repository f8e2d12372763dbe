"""A model that does what a message says: `do charge:m1 transfer:m2, then grant:m3` is two steps of tool calls.

    python -m tests.chaos.provider --port 9001 --seed 7

It keeps nothing: what it does next follows from the transcript, so it may be killed at any time. And it fails: some
requests with an error, some in the middle of a stream after the work was done, some late.
"""

import argparse
import random
import threading
from typing import Any

from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import Cut, HttpError, Reply, Slow, Text, ToolCalls

#: Of a hundred requests, how many fail at once, break off, or are slow.
_ERROR_PERCENT, _CUT_PERCENT, _SLOW_PERCENT = 4, 3, 5

#: Arguments beyond the marker.
_AMOUNT = 7


def wished(text: str) -> list[list[tuple[str, dict[str, Any]]]]:
    """The steps that a message asks for, each a list of calls."""
    return [[_call(word) for word in part.split()] for part in text.removeprefix("do ").split(", then ")]


def _call(word: str) -> tuple[str, dict[str, Any]]:
    name, _, marker = word.partition(":")
    arguments: dict[str, Any] = {"marker": marker}
    if name in ("grant", "pay_out"):
        arguments["amount"] = _AMOUNT
    return name, arguments


def answer(request: RecordedRequest) -> Text | ToolCalls:
    """The next step that the last message of the user asks for; in the end, that it is done."""
    messages = request.body["messages"]
    last = max(number for number, message in enumerate(messages) if message["role"] == "user")
    taken = sum(1 for message in messages[last:] if message.get("tool_calls"))
    text = messages[last]["content"]
    steps = wished(text) if text.startswith("do ") else []
    return ToolCalls(steps[taken]) if taken < len(steps) else Text(f"done: {text}")


class Unreliable:
    """Says what `answer` says, most of the time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, request: RecordedRequest) -> Reply:
        reply = answer(request)
        with self._lock:
            drawn = self._random.uniform(0, 100)
        if drawn < _ERROR_PERCENT:
            return HttpError(500)
        if drawn < _ERROR_PERCENT + _CUT_PERCENT:
            return Cut(reply)
        return Slow(reply, 0.5) if drawn < _ERROR_PERCENT + _CUT_PERCENT + _SLOW_PERCENT else reply


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    provider = ScriptedProvider(given.port, keeps_requests=False)
    provider.default = Unreliable(given.seed)
    provider.serve_until_stopped()


if __name__ == "__main__":
    main()
