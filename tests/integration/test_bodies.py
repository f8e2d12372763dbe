"""Bodies that no client of good will sends: each is refused with a problem, none is an error of ours, none is kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import operations
from tests.harness.caller import Caller
from tests.harness.stage import Stage

WITH_BODY = [
    each
    for each in operations.operations()
    if each[0] in ("POST", "PUT") and not each[1].endswith(("/cancel", "/replay"))
]

DEPTH = 10_000

#: JSON that says nothing, or more than one thing.
NO_JSON = {
    "an open object": b"{",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "nested objects": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    "nested lists": b"[" * DEPTH + b"]" * DEPTH,
    "NaN": b'{"metadata": {"a": NaN}}',
    "Infinity": b'{"metadata": {"a": -Infinity}}',
    "a number beyond all": b'{"metadata": {"a": 1e999}}',
    "an integer of 5,000 digits": b'{"metadata": {"a": ' + b"9" * 5000 + b"}}",
    "a key twice": b'{"agent": "support", "agent": "trusting", "text": "hello"}',
    "a key twice, below": b'{"agent": "support", "text": "hello", "metadata": {"a": 1, "\\u0061": 2}}',
}

#: Texts that PostgreSQL, or UTF-8, can't hold.
ODD_TEXTS = ["a\x00b", "\ud800", "\udfff\ud800", "a\ud83d"]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_what_is_no_json_is_refused(ada: Caller, method: str, path: str) -> None:
    for name, body in NO_JSON.items():
        response = await ada.http.request(method, named(path), content=body, headers=JSON)
        assert (name, response.status_code in (400, 422)) == (name, True), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 2000, "what was sent is not sent back"


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_ten_megabytes_are_refused(ada: Caller, method: str, path: str) -> None:
    body = b'{"text": "' + b"x" * 10_000_000 + b'"}'
    response = await ada.http.request(method, named(path), content=body, headers=JSON)

    assert response.status_code == 413
    assert (await ada.get("/v1/runs"))["data"] == []


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_ten_megabytes_without_a_length_are_refused(ada: Caller, method: str, path: str) -> None:
    async def pieces() -> Any:
        for _ in range(160):
            yield b" " * 65_536

    response = await ada.http.request(method, named(path), content=pieces(), headers=JSON)

    assert response.status_code == 413


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_texts_that_can_not_be_kept_are_refused_or_kept_whole(
    ada: Caller, stage: Stage, method: str, path: str
) -> None:
    asked = 0
    for body in with_an_odd_text(path):
        response = await ada.http.request(method, named(path), content=json.dumps(body).encode(), headers=JSON)
        # 502: the model was asked, and did not answer with what fits the schema.
        assert response.status_code < 500 or response.status_code == 502, (body, response.text)
        asked += 1
    assert asked >= len(ODD_TEXTS)


def with_an_odd_text(path: str) -> Iterator[Any]:
    """Bodies that would be fine, but for one text."""
    for odd in ODD_TEXTS:
        for fitting in FITTING[path]:
            yield from odd_somewhere(fitting, odd)


def odd_somewhere(value: Any, odd: str) -> Iterator[Any]:
    """The value, with the odd text in place of one text, or one key, at a time."""
    if isinstance(value, str):
        yield odd
    elif isinstance(value, list):
        for place, item in enumerate(value):
            for changed in odd_somewhere(item, odd):
                yield [*value[:place], changed, *value[place + 1 :]]
    elif isinstance(value, dict):
        yield {**value, odd: "x"}
        for key, item in value.items():
            for changed in odd_somewhere(item, odd):
                yield {**value, key: changed}


def named(path: str) -> str:
    """The path, of something."""
    return path.format_map(Anything())


class Anything(dict[str, str]):
    """Whatever a path asks for."""

    def __missing__(self, name: str) -> str:
        return "support" if name == "name" else "some_01"


JSON = {"content-type": "application/json"}

_ASK = {"alias": "fast", "messages": [{"role": "user", "content": "hello", "name": "n"}], "purpose": "a test"}
_DECISION = {"decision": "edit", "arguments_digest": "0" * 64, "reason": "why", "arguments": {"a": ["b", {"c": "d"}]}}

# Of none that is there: what goes into a thread of the client's own name is answered with a stream.
_CONVERSATION = f"conv_{'0' * 26}"
_APPROVAL = f"conf_{'0' * 26}.{'0' * 64}"
_EDIT = {"approved": True, "reason": "r", "editedArgs": {"a": "b"}}
_TEXT = {"type": "text", "text": "hello"}
_APPROVED = {"state": "approval-responded", "approval": {"id": _APPROVAL, "approved": True, "reason": "r"}}

#: For each operation, bodies that fit. One that is not named here fails the test.
FITTING: dict[str, list[Any]] = {
    "/v1/messages": [
        {
            "agent": "support",
            "text": "hello",
            "conversation_id": "conv_1",
            "message_id": "m",
            "sender": "s",
            "metadata": {"a": ["b", {"c": "d"}]},
        },
        {"agent": "support", "text": "hello", "metadata": {"a": ["b", {"c": "d"}]}},
    ],
    "/v1/confirmations/decisions": [{"decisions": [{"id": "conf_1", **_DECISION}]}],
    "/v1/confirmations/{confirmation_id}/decision": [_DECISION],
    "/v1/tool-calls/{tool_call_id}/resolution": [
        {"outcome": "committed", "evidence": "seen", "result": ["a", {"b": "c"}]}
    ],
    "/v1/agents/{name}": [
        {
            "name": "support",
            "model": "fast",
            "persona": "p",
            "system_prompt": "s",
            "identity": {"name": "n", "role": "r"},
            "tools": [{"pattern": "x", "verdict": "confirm", "when": "a == 'b'"}],
        }
    ],
    "/v1/responses": [
        {
            "model": "support",
            "background": True,
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
            "metadata": {"a": "b"},
            "user": "u",
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
        },
        {
            "model": "support",
            "input": [{"type": "function_call_output", "call_id": "call_1", "output": "o"}],
            "conversation": {"id": "conv_1"},
            "previous_response_id": "resp_1",
        },
    ],
    "/v1/chat/completions": [
        {
            "model": "support",
            "messages": [{"role": "user", "content": "hello"}],
            "user": "u",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        },
        {"model": "support", "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "o"}]},
    ],
    "/v1/budget": [{"limit_usd": "1", "period": "day"}],
    "/v1/switches/{scope}": [{"reason": "r"}],
    "/v1/keys": [{"person": "p", "roles": ["client"], "expires_in": "90d"}],
    "/v1/identities": [{"kind": "slack", "subject": "s", "principal": "p", "roles": ["client"]}],
    "/v1/webhooks": [{"url": "https://example.com/hook", "events": ["run.completed"]}],
    "/v1/webhooks/{webhook_id}": [{"url": "https://example.com/hook", "events": ["run.completed"], "enabled": True}],
    "/v1/webhooks/{webhook_id}/rotation": [{"grace_period": "1h"}],
    "/v1/provider-keys/{provider}": [{"key": "long-enough"}],
    "/codec/decode": [{"payloads": [{"metadata": {"encoding": "anNvbg=="}, "data": "e30="}]}],
    "/complete": [{**_ASK, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "b"}}}]}],
    "/complete/stream": [_ASK],
    "/generate": [{**_ASK, "schema": {"type": "object", "title": "t"}, "prompt_version": "v"}],
    "/agui/{agent}": [
        {"threadId": _CONVERSATION, "runId": "r", "messages": [{"id": "m", "role": "user", "content": "hello"}]},
        {
            "threadId": _CONVERSATION,
            "runId": "r",
            "messages": [],
            "resume": [{"interruptId": _APPROVAL, "status": "resolved", "payload": _EDIT}],
        },
    ],
    "/api/chat": [
        {"agent": "support", "id": _CONVERSATION, "messages": [{"id": "m", "role": "user", "parts": [_TEXT]}]},
        {"id": _CONVERSATION, "messages": [{"id": "m", "role": "assistant", "parts": [_APPROVED]}]},
    ],
    "/embed": [{"alias": "vectors", "input": ["a"], "purpose": "p"}],
}
