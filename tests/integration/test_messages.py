"""Sending messages: accepted once, answered once, refused clearly."""

import asyncio
import json
from typing import Any

import pytest

from holdfast.domain.messages import MAX_TEXT_CHARACTERS
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text
from tests.harness.caller import Caller
from tests.harness.stage import Stage

COUNT_MESSAGES = "SELECT count(*) FROM messages WHERE tenant_id = $1 AND role = 'user'"


async def test_a_message_is_answered(ada: Caller) -> None:
    run = await ada.ask("hello")

    assert (run["status"], run["reply"], run["degraded"]) == ("completed", "You said: hello", False)
    assert run["usage"]["prompt_tokens"] > 0
    assert run["usage"]["cost_usd"] is None, "the scripted model has no price, which is not the price 0"
    assert [step["alias"] for step in run["steps"]] == ["quality"]


async def test_wait_answers_with_the_run(ada: Caller) -> None:
    response = await ada.send("hello", wait=50)

    assert response.status_code == 200
    assert response.json()["reply"] == "You said: hello"


async def test_without_waiting_it_is_accepted(ada: Caller) -> None:
    response = await ada.send("hello")

    assert response.status_code == 202
    accepted = response.json()
    assert accepted["accepted"] is True
    assert accepted["status"] == "queued"
    assert (await ada.run(accepted["run_id"]))["message_id"] == accepted["message_id"]


async def test_a_conversation_is_remembered(ada: Caller, provider: ScriptedProvider) -> None:
    first = await ada.ask("my name is Ada")
    await ada.ask("what is my name?", conversation_id=first["conversation_id"])

    spoken = [message["content"] for message in provider.requests[-1].body["messages"][1:]]
    assert spoken == ["my name is Ada", "You said: my name is Ada", "what is my name?"]
    transcript = await ada.get(f"/v1/conversations/{first['conversation_id']}/messages")
    assert [message["role"] for message in transcript["data"]] == ["user", "assistant", "user", "assistant"]


async def test_the_same_key_finds_the_first_run(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    first = (await ada.send("hello", key="k1", wait=50)).json()
    again = await ada.send("hello", key="k1", wait=50)

    assert again.status_code == 200
    assert again.json() == first
    assert (await stage.rows(COUNT_MESSAGES, ada.tenant_id))[0][0] == 1
    assert provider.calls == 1


async def test_message_id_is_a_key_too(ada: Caller) -> None:
    first = await ada.send("hello", message_id="m1")
    again = await ada.send("hello", message_id="m1")

    assert again.json()["run_id"] == first.json()["run_id"]
    assert again.json()["accepted"] is False
    await ada.run(first.json()["run_id"])


async def test_fifty_deliveries_at_once_are_one_message(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    responses = await asyncio.gather(*(ada.send("hello", key="same") for _ in range(50)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["run_id"] for response in responses}) == 1
    assert [response.json()["accepted"] for response in responses].count(True) == 1
    await ada.run(responses[0].json()["run_id"])
    assert (await stage.rows(COUNT_MESSAGES, ada.tenant_id))[0][0] == 1
    assert provider.calls == 1


async def test_the_same_key_with_another_text_is_refused(ada: Caller, stage: Stage) -> None:
    await ada.ask("hello", key="k1")
    response = await ada.send("something else", key="k1")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert (await stage.rows(COUNT_MESSAGES, ada.tenant_id))[0][0] == 1


async def test_two_tenants_may_use_the_same_key(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(f"{ada.tenant_id}-other")
    first, second = await ada.ask("hello", key="k1"), await bob.ask("good day", key="k1")

    assert (first["reply"], second["reply"]) == ("You said: hello", "You said: good day")


BODY: dict[str, Any] = {"agent": "support", "text": "hello"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        pytest.param({**BODY, "agent": "nobody"}, 422, "agent", id="unknown agent"),
        pytest.param({**BODY, "text": ""}, 422, "text", id="empty"),
        pytest.param({**BODY, "text": " \n\t"}, 422, "text", id="blank"),
        pytest.param({**BODY, "text": "x" * (MAX_TEXT_CHARACTERS + 1)}, 422, "text", id="oversized"),
        pytest.param({**BODY, "text": "a\x00b"}, 422, "text", id="NUL"),
        pytest.param({**BODY, "text": 7}, 422, "text", id="no text"),
        pytest.param({"agent": "support"}, 422, "text", id="missing"),
        pytest.param({**BODY, "colour": "red"}, 422, "colour", id="unknown field"),
        pytest.param({**BODY, "metadata": {"deep": "\x00"}}, 422, "metadata", id="NUL in the metadata"),
        pytest.param({**BODY, "metadata": [1]}, 422, "metadata", id="metadata of the wrong type"),
        pytest.param({**BODY, "message_id": ""}, 422, "Idempotency-Key", id="empty key"),
        pytest.param({**BODY, "message_id": "k" * 256}, 422, "Idempotency-Key", id="long key"),
        pytest.param([], 422, "body", id="a list"),
        pytest.param("text", 422, "body", id="a string"),
    ],
)
async def test_bad_input_names_the_field(ada: Caller, stage: Stage, body: Any, status: int, field: str) -> None:
    response = await ada.http.post("/v1/messages", json=body)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["error"]["param"] == field
    assert (await stage.rows(COUNT_MESSAGES, ada.tenant_id))[0][0] == 0


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"{", 400, id="cut"),
        pytest.param(b"", 422, id="empty"),
        pytest.param(b"\xff\xfe", 400, id="not text"),
        pytest.param(b'{"agent": "support", "text": NaN}', 400, id="NaN"),
        pytest.param(b'{"agent": "support", "text": "\\ud800"}', 422, id="a lone surrogate"),
        pytest.param(b"[" * 100_000, 400, id="deep"),
        pytest.param(json.dumps({**BODY, "text": "x" * 2_000_000}).encode(), 413, id="two megabytes"),
    ],
)
async def test_a_broken_body_is_a_problem_and_not_an_error(ada: Caller, content: bytes, status: int) -> None:
    response = await ada.http.post("/v1/messages", content=content, headers={"content-type": "application/json"})

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("key", [None, "hf_wrong", "Ünïcode"])
async def test_a_wrong_key_is_refused(ada: Caller, key: str | None) -> None:
    headers = {b"authorization": b"" if key is None else f"Bearer {key}".encode()}
    response = await ada.http.post("/v1/messages", json=BODY, headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == ("Bearer" if key is None else 'Bearer error="invalid_token"')
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_conversation_that_is_not_there_is_not_found(ada: Caller) -> None:
    response = await ada.send("hello", conversation_id="conv_unknown")

    assert response.status_code == 404
    assert (await ada.http.get("/v1/conversations/conv_unknown/messages")).status_code == 404


async def test_the_longest_text_is_taken_whole(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("long"))
    text = "ü" * MAX_TEXT_CHARACTERS
    await ada.ask(text)

    assert provider.requests[0].last_text == text


async def test_lists_are_paged(ada: Caller) -> None:
    for number in range(3):
        await ada.ask(f"message {number}")

    first = await ada.get("/v1/runs", limit=2)
    rest = await ada.get("/v1/runs", limit=2, after=first["last_id"])

    assert first["has_more"]
    assert not rest["has_more"]
    replies = [run["reply"] for run in (*first["data"], *rest["data"])]
    assert replies == ["You said: message 2", "You said: message 1", "You said: message 0"]
