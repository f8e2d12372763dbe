"""The scripted provider does as it is told, so that what the tests say of providers is so."""

from collections.abc import Iterator

import httpx
import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Cut, Garbage, HttpError, Text

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_answer_begins_and_never_ends(provider: ScriptedProvider, stream: bool) -> None:
    provider.script(Cut("one two three four five six seven eight"))
    received: list[bytes] = []
    with (
        httpx.Client() as client,
        client.stream("POST", f"{provider.url}/chat/completions", json={**QUESTION, "stream": stream}) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(response.iter_raw())

    assert response.status_code == 200
    assert received
    assert b"[DONE]" not in b"".join(received)


def test_the_api_of_openai_is_below_the_root(provider: ScriptedProvider) -> None:
    assert provider.url == f"{provider.root}/v1"


def test_replies_come_in_the_order_of_the_script_and_then_the_default(provider: ScriptedProvider) -> None:
    provider.script(HttpError(429, headers={"retry-after": "7"}), Garbage(), Text("at last"))
    with httpx.Client() as client:
        limited, garbage, answered, after = (
            client.post(f"{provider.url}/chat/completions", json=QUESTION) for _ in range(4)
        )

    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert garbage.headers["content-type"].startswith("text/html")
    assert answered.json()["choices"][0]["message"]["content"] == "at last"
    assert after.json()["choices"][0]["message"]["content"] == "You said: hello"
    assert provider.calls == 4
    assert [request.last_text for request in provider.requests] == ["hello"] * 4
