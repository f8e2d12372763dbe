"""Whatever is sent is answered with a problem that says what is wrong with it: never with an error of ours."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.caller import Caller

#: What no id looks like.
ODD = ["\x00", "a\x00b", "\n", "../..", "ü", "x" * 500, "' OR 1=1 --", "\ud800"]

PATHS = ["/v1/runs/{}", "/v1/confirmations/{}", "/v1/conversations/{}/messages"]


def encoded(text: str) -> str:
    """As a client that checks nothing would send it."""
    return quote(text.encode(errors="surrogatepass"), safe="")


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_no_id_is_not_found(ada: Caller, path: str) -> None:
    for odd in ODD:
        response = await ada.http.get(path.format(encoded(odd)))
        assert (response.status_code, odd) == (404, odd)
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    [
        "/v1/runs?limit=0",
        "/v1/runs?limit=101",
        "/v1/runs?limit=x",
        "/v1/runs?status=nope",
        "/v1/runs?colour=red",
        "/v1/runs?after=%00",
        "/v1/runs?after=%ED%A0%80",
        "/v1/confirmations?run_id=%00",
        "/v1/confirmations?status=nope",
        "/v1/conversations/conv_x/messages?after=%00",
    ],
)
async def test_a_query_that_makes_no_sense_names_its_parameter(ada: Caller, query: str) -> None:
    response = await ada.http.get(query)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] in query


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "56", "x"])
async def test_a_wait_that_makes_no_sense_accepts_nothing(ada: Caller, wait: str) -> None:
    response = await ada.http.post("/v1/messages", params={"wait": wait}, json={"agent": "support", "text": "hello"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "wait"
    assert (await ada.get("/v1/runs"))["data"] == []


@pytest.mark.parametrize("depth", [33, 400, 900])
async def test_metadata_without_end_is_refused(ada: Caller, depth: int) -> None:
    content = '{"agent": "support", "text": "hello", "metadata": ' + '{"a":' * depth + "1" + "}" * depth + "}"
    response = await ada.http.post("/v1/messages", content=content, headers={"content-type": "application/json"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "metadata"


AGENT: dict[str, Any] = {"name": "wild", "model": "quality"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({**AGENT, "name": "other"}, "name"),
        ({**AGENT, "model": ""}, "model"),
        ({**AGENT, "system_prompt": "a\x00b"}, "system_prompt"),
        ({**AGENT, "colour": "red"}, "colour"),
        ({**AGENT, "limits": {"max_steps": 51}}, "limits.max_steps"),
        ({**AGENT, "limits": {"patience": "25h"}}, "limits.patience"),
        ({**AGENT, "limits": {"patience": 5}}, "limits.patience"),
        ({**AGENT, "confirmation": {"deadline": "99999999d"}}, "confirmation.deadline"),
        ({**AGENT, "tools": [{"pattern": "*", "verdict": "confirm", "deadline": "P300000D"}]}, "tools.0.deadline"),
        ({**AGENT, "tools": [{"pattern": "*", "verdict": "perhaps"}]}, "tools.0.verdict"),
    ],
)
async def test_an_agent_that_could_not_run_is_not_taken(ada: Caller, spec: dict[str, Any], field: str) -> None:
    response = await ada.http.put("/v1/agents/wild", json=spec)

    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field


async def test_an_agent_can_be_changed_and_a_change_is_a_version(ada: Caller) -> None:
    first = await ada.http.put("/v1/agents/wild", json=AGENT)
    again = await ada.http.put("/v1/agents/wild", json=AGENT)
    changed = await ada.http.put("/v1/agents/wild", json={**AGENT, "persona": "Wild."})

    assert [response.json()["version"] for response in (first, again, changed)] == [1, 1, 2]
    assert (await ada.ask("hello", agent="wild"))["agent_version"] == 2


async def test_an_agent_whose_alias_is_nowhere_answers_politely(ada: Caller) -> None:
    await ada.http.put("/v1/agents/wild", json={**AGENT, "model": "nowhere", "limits": {"patience": "1s"}})
    run = await ada.ask("hello", agent="wild")

    assert (run["status"], run["degraded"]) == ("completed", True)


@pytest.mark.parametrize("path", ["/", "/v1", "/nope", "/v1/runs/../../etc/passwd"])
async def test_a_path_that_leads_nowhere_is_a_problem(ada: Caller, path: str) -> None:
    response = await ada.http.get(path)

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_connection_outlives_bad_input(ada: Caller) -> None:
    """A response that ends its connection would fail the requests that share it."""
    bad = [
        ada.http.get("/v1/runs?after=%00"),
        ada.http.get("/v1/runs/%00"),
        ada.http.post("/v1/messages", content=b"{"),
    ]
    await asyncio.gather(*bad)

    assert (await ada.http.get("/v1/runs")).status_code == 200
