"""The model pool over HTTP: by alias, recorded for the tenant, honest when nobody answers."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Cut, HttpError, Stalls, Text, ToolCalls
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage

AUDIT = "SELECT * FROM audit WHERE tenant_id = $1 AND kind = 'model_call' ORDER BY audit_id"
HELLO = [{"role": "user", "content": "hello"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


@pytest.fixture
async def asked(pool_url: str, ada: Caller) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the pool, with ada's key."""
    headers = {"authorization": f"Bearer {ada.key}"}
    async with httpx.AsyncClient(base_url=pool_url, headers=headers, timeout=60) as client:
        yield client


async def post(asked: httpx.AsyncClient, path: str, status: int = 200, **body: Any) -> Json:
    response = await asked.post(path, json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json" if status >= 400 else "application/")
    answer: Json = response.json()
    return answer


async def lines(asked: httpx.AsyncClient, **body: Any) -> list[Json]:
    response = await asked.post("/complete/stream", json=body)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


async def test_a_completion_names_who_answered_and_what_it_took(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    answer = await post(asked, "/complete", alias="quality", messages=HELLO, max_tokens=50)

    assert (answer["text"], answer["finish_reason"]) == ("You said: hello", "stop")
    assert (answer["alias"], answer["model"], answer["deployment"]) == ("quality", "scripted-quality", "quality#1")
    assert answer["usage"]["completion_tokens"] == len("You said: hello") // 4
    assert answer["usage"]["cost_usd"] is None
    assert answer["usage"]["is_estimated"] is False
    assert [attempt["failure"] for attempt in answer["attempts"]] == [None]
    assert provider.requests[0].body["max_tokens"] == 50


async def test_after_a_fallback_every_attempt_says_why_it_failed(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.script(HttpError(500))
    answer = await post(asked, "/complete", alias="quality", messages=HELLO)

    assert (answer["model"], answer["deployment"]) == ("scripted-fast", "fast#1")
    assert [(attempt["deployment"], attempt["failure"]) for attempt in answer["attempts"]] == [
        ("quality#1", "the provider failed (HTTP 500)"),
        ("fast#1", None),
    ]


async def test_tool_calls_come_with_ids_of_ours(asked: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    provider.script(ToolCalls([("look_up", {"a": 1}), ("look_up", "{broken")], ids=["same", "same"]))
    answer = await post(asked, "/complete", alias="fast", messages=HELLO, tools=[tool])

    calls = answer["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"a": 1}', "{broken"]
    assert len({call["id"] for call in calls}) == 2
    assert answer["finish_reason"] == "tool_calls"


async def test_a_stream_gives_the_text_as_it_is_written_and_then_the_whole(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.script(Text("one two three"))
    told = await lines(asked, alias="quality", messages=HELLO)

    assert [line["type"] for line in told] == ["chunk"] * 3 + ["done"]
    assert "".join(line["text"] for line in told[:-1]) == told[-1]["text"] == "one two three"
    assert told[-1]["usage"]["completion_tokens"] == len("one two three") // 4
    assert told[-1]["first_token_ms"] is not None


async def test_a_stream_that_breaks_off_is_taken_back_and_begun_anew(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.script(Cut("a long answer that will never come to its end"), Text("whole"))
    told = await lines(asked, alias="quality", messages=HELLO)

    reset = [line["type"] for line in told].index("reset")
    assert reset > 0
    assert {line["attempt"] for line in told[:reset]} == {1} == {told[reset]["attempt"]}
    assert [line.get("text") for line in told[reset + 1 :]] == ["whole", "whole"]


async def test_a_stream_that_nobody_ends_says_so_in_its_last_line(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: Cut("a long answer that will never come to its end")
    told = await lines(asked, alias="quality", messages=HELLO)

    assert [line["type"] for line in told if line["type"] != "chunk"] == ["reset", "reset", "error"]
    assert (told[-1]["status"], told[-1]["title"]) == (503, "All providers unavailable")


@pytest.mark.parametrize("path", ["/complete", "/complete/stream"])
async def test_when_nobody_answers_it_is_unavailable_and_says_when_to_try_again(
    asked: httpx.AsyncClient, provider: ScriptedProvider, path: str
) -> None:
    provider.default = lambda _: HttpError(429, "secret", headers={"retry-after": "7"})
    response = await asked.post(path, json={"alias": "quality", "messages": HELLO})

    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["title"] == "All providers unavailable"
    assert "quality#1: the limit of requests is reached (HTTP 429)" in response.json()["detail"]
    assert "secret" not in response.text


@pytest.mark.parametrize(("status", "told"), [(400, 422), (422, 422), (401, 502), (404, 502)])
async def test_whose_fault_it_is_shows_in_the_status(
    asked: httpx.AsyncClient, provider: ScriptedProvider, status: int, told: int
) -> None:
    provider.default = lambda _: HttpError(status)
    problem = await post(asked, "/complete", told, alias="quality", messages=HELLO)

    assert f"HTTP {status}" in problem["detail"]
    assert provider.calls == 1, "nobody else is asked"


async def test_a_reader_that_goes_away_ends_the_providers_call_and_leaves_a_record(
    asked: httpx.AsyncClient, provider: ScriptedProvider, ada: Caller, stage: Stage
) -> None:
    provider.script(Stalls(Text("one two three four"), after=3))
    async with asked.stream("POST", "/complete/stream", json={"alias": "quality", "messages": HELLO}) as response:
        first = await anext(response.aiter_lines())
    assert json.loads(first)["type"] == "chunk"

    await until(lambda: provider.abandoned == 1)

    async def outcomes() -> list[str]:
        return [row["outcome"] for row in await stage.rows(AUDIT, ada.tenant_id)]

    async def is_recorded() -> bool:
        return await outcomes() == ["cancelled"]

    await until(is_recorded)


async def test_every_call_is_recorded_for_its_tenant_and_purpose(
    asked: httpx.AsyncClient, provider: ScriptedProvider, ada: Caller, stage: Stage
) -> None:
    provider.script(Text("yes"), HttpError(400))
    await post(asked, "/complete", alias="fast", messages=HELLO, purpose="tip-generator")
    await post(asked, "/complete", 422, alias="fast", messages=HELLO, purpose="tip-generator")
    await post(asked, "/embed", alias="vectors", input="hello", purpose="search")

    rows = await stage.rows(AUDIT, ada.tenant_id)
    assert [(row["alias"], row["outcome"], row["purpose"], row["run_id"]) for row in rows] == [
        ("fast", "answered", "tip-generator", None),
        ("fast", "failed", "tip-generator", None),
        ("vectors", "answered", "search", None),
    ]
    assert rows[0]["prompt_tokens"] > 0
    assert "HTTP 400" in rows[1]["detail"]


async def test_texts_become_vectors_in_their_order(asked: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    both = await post(asked, "/embed", alias="vectors", input=["one", "two"])
    one, two = both["data"]
    alone = await post(asked, "/embed", alias="vectors", input="two")

    assert alone["data"] == [two] != [one]
    assert both["usage"]["prompt_tokens"] > 0
    assert both["deployment"] == "vectors#1"


async def test_an_embedding_is_asked_for_once(asked: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    provider.default = lambda _: HttpError(429)
    await post(asked, "/embed", 503, alias="vectors", input="hello")

    assert provider.calls == 1, "LiteLLM would ask three times"


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "Mo", "age": 3}',
        '```json\n{"name": "Mo", "age": 3}\n```',
        'Here it is:\n```\n{"name": "Mo", "age": 3}\n```\nGlad to help.',
    ],
)
async def test_an_answer_is_held_to_its_schema_with_or_without_a_fence(
    asked: httpx.AsyncClient, provider: ScriptedProvider, said: str
) -> None:
    provider.script(Text(said))
    answer = await post(asked, "/generate", alias="quality", messages=HELLO, schema=PERSON, prompt_version="v7")

    assert answer["value"] == {"name": "Mo", "age": 3}
    assert (answer["prompt_version"], answer["repairs"], answer["alias"]) == ("v7", 0, "quality")


async def test_a_malformed_answer_is_sent_back_with_what_is_wrong(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.script(Text("no JSON"), Text('{"name": "Mo", "age": -1}'), Text('{"name": "Mo", "age": 3}'))
    answer = await post(asked, "/generate", alias="quality", messages=HELLO, schema=PERSON)

    assert (answer["value"]["age"], answer["repairs"], len(answer["attempts"])) == (3, 2, 3)
    sent = [request.body["messages"] for request in provider.requests]
    assert "it is not JSON" in sent[1][-1]["content"]
    assert "$.age: -1 is less than the minimum of 0" in sent[2][-1]["content"]
    assert sent[2][-2] == {"role": "assistant", "content": '{"name": "Mo", "age": -1}'}


async def test_after_two_repairs_the_last_mistakes_are_told(
    asked: httpx.AsyncClient, provider: ScriptedProvider, ada: Caller, stage: Stage
) -> None:
    provider.default = lambda _: Text('{"name": "Mo", "age": "three"}')
    problem = await post(asked, "/generate", 502, alias="quality", messages=HELLO, schema=PERSON)

    assert problem["errors"] == [{"field": "$.age", "detail": "'three' is not of type 'integer'"}]
    assert provider.calls == 3
    assert len(await stage.rows(AUDIT, ada.tenant_id)) == 3, "each was paid for"


async def test_without_a_provider_there_is_nothing_to_repair(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: HttpError(500)
    await post(asked, "/generate", 503, alias="quality", messages=HELLO, schema=PERSON)

    assert provider.calls == 2, "one for each deployment"


async def test_a_prompt_has_the_same_version_as_long_as_it_is_the_same(
    asked: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: Text("1")

    async def version(system: str, user: str, schema: Json) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return str((await post(asked, "/generate", alias="fast", messages=messages, schema=schema))["prompt_version"])

    first = await version("Count.", "a", {"type": "integer"})
    assert await version("Count.", "another question", {"type": "integer"}) == first
    assert await version("Count well.", "a", {"type": "integer"}) != first
    assert await version("Count.", "a", {"type": "number"}) != first


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/complete", {"alias": "quailty", "messages": HELLO}, "alias"),
        ("/complete", {"alias": "quality", "messages": []}, "messages"),
        ("/complete", {"alias": "quality", "messages": [{"role": "root", "content": "x"}]}, "messages.0.role"),
        ("/complete", {"alias": "quality", "messages": HELLO, "temprature": 1}, "temprature"),
        ("/complete", {"alias": "quality", "messages": [{"role": "user", "content": "half \ud800"}]}, "messages"),
        ("/complete", {"alias": "quality", "messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ("/complete", {"alias": "quality", "messages": HELLO, "purpose": "a\x00b"}, "purpose"),
        ("/embed", {"alias": "vectors", "input": []}, "input.list[constrained-str]"),
        ("/generate", {"alias": "quality", "messages": HELLO, "schema": {"type": "objekt"}}, "schema"),
        ("/generate", {"alias": "quality", "messages": HELLO, "schema": {"$ref": "http://127.0.0.1:1/s"}}, "schema"),
        ("/generate", {"alias": "quality", "messages": HELLO, "schema": {"$ref": "#"}}, "schema"),
        ("/generate", {"alias": "quality", "messages": HELLO}, "schema"),
    ],
)
async def test_what_can_not_be_asked_is_refused_by_name(
    asked: httpx.AsyncClient, provider: ScriptedProvider, path: str, body: Json, field: str
) -> None:
    provider.default = lambda _: Text("{}")
    response = await asked.post(path, content=json.dumps(body), headers={"content-type": "application/json"})

    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"].startswith(field.partition(".list")[0])


async def test_nobody_gets_in_without_a_key(pool_url: str, provider: ScriptedProvider) -> None:
    async with httpx.AsyncClient(base_url=pool_url) as stranger:
        for path in ("/complete", "/complete/stream", "/generate", "/embed"):
            response = await stranger.post(path, json={"alias": "quality", "messages": HELLO})
            assert response.status_code == 401
        assert (await stranger.get("/livez")).status_code == 200
        assert (await stranger.get("/health")).status_code == 200
    assert provider.calls == 0


async def test_the_api_serves_the_same_where_it_has_models(ada: Caller, provider: ScriptedProvider) -> None:
    response = await ada.http.post("/complete", json={"alias": "fast", "messages": HELLO})

    assert response.status_code == 200
    assert response.json()["text"] == "You said: hello"
