"""What `/openapi.json` says is what happens, whatever is sent: no error of ours, and every answer as documented."""

import asyncio
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyFailure
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.harness import operations
from tests.harness.caller import Caller

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

#: How often each operation is asked, in each of the two tests.
EXAMPLES = 15

OPERATIONS = operations.operations()

#: An address that may be told, where nobody listens.
NOBODY_THERE = "http://127.0.0.1:9"
#: Of a chat by any name nothing is being answered, which is no error; and an empty list in a query says nothing.
ANY_NAME = "/api/chat/{chat_id}/stream"

# The application runs beside the examples in this process, and what it draws at random looks like theirs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the .random. module:hypothesis.errors.HypothesisDeprecationWarning"
)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_what_fits_is_answered_as_documented(
    ada: Caller, provider: ScriptedProvider, method: str, path: str
) -> None:
    call = ("hang_sending", {"marker": "m"}) if "resolution" in path else ("pay", {"marker": "m", "amount": 1})
    known = {**await something(ada, provider, call), **await something_to_administer(ada, path)}
    known |= from_a_chat(path) | await from_an_sdk(ada, path, known["run_id"])
    if path.endswith("/events"):
        # The stream of one that waits would not end.
        known["run_id"] = (await ada.ask("hello"))["id"]
    schema = steered(operations.schema(), known)
    # What /generate asks for is JSON.
    provider.script(*[Text("{}")] * (EXAMPLES if path == "/generate" else 0))
    statuses = await answers(ada, schema, method, path, GenerationMode.POSITIVE)
    assert any(status < 300 for status in statuses), f"{statuses}: it never came to what it is there for"


@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if each not in operations.PUBLIC])
async def test_what_does_not_fit_is_answered_as_documented(ada: Caller, method: str, path: str) -> None:
    statuses = await answers(ada, operations.schema(), method, path, GenerationMode.NEGATIVE)
    assert any(status >= 400 for status in statuses)


async def something(ada: Caller, provider: ScriptedProvider, call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """What a request can name: a run that waits for a person, and all that belongs to it; and a budget."""
    provider.script(ToolCalls([call]))
    run = await ada.ask("hello")
    asked = await ada.only_pending(run)
    await ada.http.put("/v1/budget", json={"limit_usd": 1, "period": "day"})
    await ada.http.put("/v1/switches/agent:frugal", json={"reason": "a test"})
    return {
        "agent": "support",
        "alias": "priced",
        "arguments_digest": asked["arguments_digest"],
        "confirmation_id": asked["id"],
        "conversation_id": run["conversation_id"],
        "decision": "reject",
        "id": asked["id"],
        "limit_usd": "1.5",
        "messages": [{"role": "user", "content": "hello"}],
        "name": "support",
        "outcome": "failed",
        "run_id": run["id"],
        "schema": {"type": "object"},
        "scope": "agent:frugal",
        "text": "hello",
        "tool_call_id": run["tool_calls"][0]["id"],
        "wait": 0.5,
    }


def from_a_chat(path: str) -> dict[str, Any]:
    """What a request of a chat client can say: a new message."""
    if path == "/agui/{agent}":
        return {"messages": [{"id": "m", "role": "user", "content": "hello"}], "tools": [], "resume": None}
    if path == "/api/chat":
        message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
        return {"messages": [message], "trigger": "submit-message", "messageId": None}
    return {}


async def from_an_sdk(ada: Caller, path: str, run_id: str) -> dict[str, Any]:
    """What a request of OpenAI's SDK can say: a new message, or which answer it wants."""
    if not path.startswith(("/v1/responses", "/v1/chat/")):
        return {}
    ended = await ada.ask("hello")
    return {
        "response_id": run_id.replace("run_", "resp_"),
        "x-holdfast-conversation": ended["conversation_id"],
        "conversation": ended["conversation_id"],
        "previous_response_id": None,
        "model": "support",
        "input": "hello",
        "metadata": {"a": "b"},
        "tools": [],
    }


async def something_to_administer(ada: Caller, path: str) -> dict[str, Any]:
    """What a request can name of what administrators see to, by the path."""
    if path.startswith("/v1/keys"):
        made = await ada.http.post("/v1/keys", json={"person": "bob"})
        return {"key_id": made.json()["id"], "person": "bob", "expires_in": "1d"}
    if path.startswith("/v1/identities"):
        link = {"kind": "oidc", "subject": "s", "principal": "bob"}
        await ada.http.put("/v1/identities", json=link)
        return link
    if path.startswith("/v1/provider-keys"):
        await ada.http.put("/v1/provider-keys/openai", json={"key": "long-enough"})
        return {"provider": "openai", "key": "long-enough"}
    if path.startswith("/v1/webhooks"):
        made = (await ada.http.post("/v1/webhooks", json={"url": NOBODY_THERE})).json()
        await ada.ask("hello")
        told = (await ada.get(f"/v1/webhooks/{made['id']}/deliveries"))["data"]
        return {"webhook_id": made["id"], "delivery_id": told[0]["id"], "url": NOBODY_THERE, "grace_period": "1h"}
    if path.startswith("/v1/switches"):
        await ada.http.put("/v1/switches/agent:trusting", json={"reason": "why"})
        return {"scope": "agent:trusting", "reason": "why"}
    return {}


async def answers(ada: Caller, schema: operations.Schema, method: str, path: str, mode: GenerationMode) -> list[int]:
    """The statuses of the answers to an operation's examples, all of which are as documented."""
    operation = schemathesis.openapi.from_dict(schema)[path][method]
    checks = [check for check in CHECKS if path != ANY_NAME or check is not negative_data_rejection]
    statuses = []
    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {ada.key}"

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Case[Any]) -> None:
            url = str(ada.http.base_url)
            # By these the server tells where a request ends: a wrong one is no request, and no operation's to answer.
            headers: Any = case.headers or {}
            for framing in ("content-length", "transfer-encoding"):
                headers.pop(framing, None)
            statuses.append(case.call_and_validate(base_url=url, session=session, checks=checks).status_code)

        try:
            await asyncio.to_thread(check)
        except FlakyFailure as failure:
            # Python's own, when two threads parse at the same moment: "AST constructor recursion depth mismatch".
            if failure.subgroup(SystemError) is None:
                raise
            await asyncio.to_thread(check)
    return statuses


def steered(schema: operations.Schema, known: dict[str, Any]) -> operations.Schema:
    """The schema, in which what names something is the name of something that is there."""
    parameters = [
        parameter
        for path in schema["paths"].values()
        for one in path.values()
        for parameter in one.get("parameters", [])
    ]
    for parameter in parameters:
        if parameter["name"] in known:
            parameter["schema"] = {"enum": [known[parameter["name"]]]}
    for title, shape in schema["components"]["schemas"].items():
        if title in ("ResponseBody", "CompletionsBody"):
            # Whatever else may stand there is refused, unless it is one of OpenAI's.
            shape["additionalProperties"] = False
        if title.endswith(("Body", "Spec")):
            properties = shape["properties"]
            properties.update({name: {"enum": [known[name]]} for name in properties.keys() & known.keys()})
    return schema
