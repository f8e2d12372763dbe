"""Whatever a stranger asks about another tenant's things is answered as if they were not there."""

import json
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from holdfast.domain import ids
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.harness import operations
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage
from tests.integration.test_bodies import FITTING

#: How many requests name something foreign, at least.
REQUESTS = 1_000

#: Stands in everything that the stranger must not see.
CANARY = "canary-4f1c"


async def test_what_is_foreign_is_answered_as_what_is_unknown(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    foreign = await things(ada, provider)
    stranger = await stage.caller(f"eve-{secrets.token_hex(8)}", person="eve")
    before = await stage.everything_of(ada.tenant_id)

    asked = 0
    for named, unheard, place in namings(foreign):
        answer = await stranger.http.send(place.naming(named, stranger))
        twin = await stranger.http.send(place.naming(unheard, stranger))
        assert said(answer, named) == said(twin, unheard), place
        assert CANARY not in answer.text, place
        asked += 1

    assert asked >= REQUESTS
    assert await stage.everything_of(ada.tenant_id) == before


async def test_a_key_that_another_tenant_used_is_as_good_as_new(ada: Caller, stage: Stage) -> None:
    first = await ada.send("hello", key="a key of everybody's")
    stranger = await stage.caller(f"eve-{secrets.token_hex(8)}", person="eve")
    other = await stranger.send("quite another message", key="a key of everybody's")

    assert (other.status_code, other.json()["accepted"]) == (202, True)
    assert other.json()["run_id"] != first.json()["run_id"]


async def things(ada: Caller, provider: ScriptedProvider) -> dict[str, str]:
    """Something of every kind, by an id of each: a run that waits for a person, after one that is answered."""
    earlier = await ada.ask(CANARY, metadata={"kept": CANARY})
    provider.script(ToolCalls([("pay", {"marker": CANARY, "amount": 1})]))
    run = await ada.ask(f"pay {CANARY}", conversation_id=earlier["conversation_id"], key=CANARY)
    asked = await ada.only_pending(run)
    return {
        "run": run["id"],
        "earlier run": earlier["id"],
        "conversation": run["conversation_id"],
        "message": run["message_id"],
        "tool call": run["tool_calls"][0]["id"],
        "confirmation": asked["id"],
        "digest": asked["arguments_digest"],
        "tenant": ada.tenant_id,
    }


@dataclass(frozen=True)
class Place:
    """Where an operation can name a thing: in its path, in a parameter, or at a place of its body."""

    method: str
    path: str
    body: Any
    parameter: str | None = None
    at: tuple[Any, ...] | None = None

    def naming(self, id_: str, caller: Caller) -> httpx.Request:
        """A request that names a thing there."""
        query = {self.parameter: id_} if self.parameter else {}
        body = self.body if self.at is None else with_text(self.body, self.at, id_)
        path = in_path(self.path, "x" if query or self.at is not None else id_)
        return caller.http.build_request(self.method, path, params=query, json=body)


def namings(foreign: dict[str, str]) -> Iterator[tuple[str, str, Place]]:
    """A foreign id, one like it that names nothing, and a place for either: every place once, then any at random."""
    everywhere = [place for operation in operations.operations() for place in places(*operation)]
    rng = random.Random(1)
    once = [(rng.choice(list(foreign)), place) for place in everywhere]
    others = [(kind, place) for kind in foreign for place in everywhere if (kind, place) not in once]
    for kind, place in [*once, *rng.choices(others, k=max(0, REQUESTS - len(once)))]:
        yield foreign[kind], unknown(kind, foreign[kind]), place


def places(method: str, path: str) -> Iterator[Place]:
    """Wherever an operation can name a thing. (`message_id` is the sender's own key; `key` a secret, from then on.)"""
    for body in FITTING.get(path, [None]) if method in ("POST", "PUT") else [None]:
        if "{" in path:
            yield Place(method, path, body)
        for parameter in parameters(method, path):
            yield Place(method, path, body, parameter=parameter)
        for at in texts(body):
            if at not in (("message_id",), ("key",)):
                yield Place(method, path, body, at=at)


def parameters(method: str, path: str) -> list[str]:
    found = operations.schema()["paths"][path][method.lower()].get("parameters", [])
    # An id is no moment, and each is refused for a reason of its own.
    return [one["name"] for one in found if one["in"] == "query" and "date-time" not in str(one["schema"])]


def in_path(path: str, id_: str) -> str:
    for name in [part for part in path.split("/") if part.startswith("{")]:
        path = path.replace(name, id_)
    return path


def texts(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a body has texts."""
    if isinstance(value, str):
        yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from texts(item, (*at, key))


def with_text(value: Any, at: tuple[Any, ...], text: str) -> Any:
    copied = json.loads(json.dumps(value))
    inner = copied
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = text
    return copied


def unknown(kind: str, id_: str) -> str:
    """An id like this one, of nothing."""
    if kind in ("digest", "tenant"):
        return id_[::-1]
    return id_[: id_.index("_") + 1] + ids.new_run_id()[len("run_") :]


def said(response: httpx.Response, id_: str) -> Json:
    """What an answer says, whatever it is about. (What went well is the stranger's own, with ids of its own.)"""
    text = response.text.replace(id_, "ID") if response.status_code >= 400 else ""
    return {"status": response.status_code, "type": response.headers.get("content-type"), "text": text}
