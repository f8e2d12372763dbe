"""The people of the chaos: they send messages, each twice, and decide what waits, more than one at a time.

They do what a careful client does: a request that is not answered is sent again, under the same key, to another API.
"""

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.cast import Cast

Json = dict[str, Any]

#: How long a request is waited for, in seconds.
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Told:
    """What somebody was told of a decision: `status` is that of the answer, `stands` the confirmation's in it."""

    confirmation_id: str
    person: str
    decision: str
    status: int
    stands: str | None


@dataclass
class People:
    """Everybody who calls the API, and what they were told."""

    cast: Cast
    random: random.Random
    told: list[Told] = field(default_factory=list)
    sent: dict[str, Json] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, limits=httpx.Limits(max_connections=100))
        self._turn = itertools.count()

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, person: str, method: str, path: str, **request: Any) -> httpx.Response:
        """Call one API after the other until one answers; what may pass (429, 5xx) counts as no answer."""
        headers = {"authorization": f"Bearer {self.cast.keys[person]}", **request.pop("headers", {})}
        while True:
            url = self.cast.urls[next(self._turn) % len(self.cast.urls)]
            try:
                response = await self._http.request(method, url + path, headers=headers, **request)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if response.status_code < 500 and response.status_code != 429:
                return response
            if response.status_code not in (429, 503):
                self.unexpected.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
            await asyncio.sleep(0.2)

    async def get(self, path: str, **parameters: Any) -> Json:
        """GET something that must be there."""
        response = await self.call("ada", "GET", path, params=parameters)
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    async def everything(self, path: str, **parameters: Any) -> list[Json]:
        """Every entry of a list, page by page."""
        entries: list[Json] = []
        while True:
            after = {"after": entries[-1]["id"]} if entries else {}
            page = await self.get(path, limit=100, **parameters, **after)
            entries += page["data"]
            if not page["has_more"]:
                return entries

    async def send(self, text: str, key: str, conversation_id: str | None = None, agent: str = "busy") -> Json:
        """Send a message, twice at once, as a client does that has lost patience; both must name the same run."""
        body: Json = {"agent": agent, "text": text}
        if conversation_id is not None:
            body["conversation_id"] = conversation_id
        request = {"json": body, "headers": {"idempotency-key": key}}
        answers = await asyncio.gather(*(self.call("ada", "POST", "/v1/messages", **request) for _ in range(2)))
        for answer in answers:
            assert answer.status_code == 202, answer.text
        first, second = (answer.json() for answer in answers)
        assert first["run_id"] == second["run_id"], "one message, two runs"
        self.sent[key] = first
        return dict(first)

    async def decide(self, asked: Json, person: str, decision: str) -> Told:
        """Decide, twice: the second time one is told the same."""
        path = f"/v1/confirmations/{asked['id']}/decision"
        body = {"decision": decision, "arguments_digest": asked["arguments_digest"]}
        told = []
        for _ in range(2):
            response = await self.call(person, "POST", path, json=body)
            stands = response.json()["status"] if response.status_code == 200 else None
            told.append(Told(asked["id"], person, decision, response.status_code, stands))
        self.told += told
        return told[-1]

    async def look_after(self, stop: asyncio.Event) -> None:
        """Decide whatever waits, until told to stop: two people at a time, who do not always agree."""
        while not stop.is_set():
            for asked in await self.everything("/v1/confirmations", status="pending"):
                if asked["kind"] == "outcome":
                    await self._settle(asked)
                elif asked["agent"] == "busy":
                    other = "reject" if self.random.random() < 0.3 else "approve"
                    await asyncio.gather(self.decide(asked, "bob", "approve"), self.decide(asked, "eve", other))
            await asyncio.sleep(0.2)

    async def _settle(self, asked: Json) -> None:
        """Say what became of a call as the recorder knows it; some are left unknown."""
        marker = asked["arguments"]["marker"]
        try:
            response = await self._http.get(f"{self.cast.recorder_url}/done/{marker}")
        except httpx.TransportError:
            return
        outcome = "committed" if response.json()["done"] else "failed"
        body = {"outcome": outcome, "evidence": "the recorder says so"}
        await self.call("bob", "POST", f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)
