"""A client of the API, as a program or a person would be one."""

from typing import Any

import httpx

from tests.harness.conditions import until

#: How long a test waits for a run, in seconds: long enough for a slow machine, short of the test's own timeout.
WAIT_S = 50

Json = dict[str, Any]


class Caller:
    """Calls the API with one key."""

    def __init__(self, url: str, key: str, tenant_id: str, person: str) -> None:
        self.key = key
        self.tenant_id = tenant_id
        self.person = person
        self.http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=WAIT_S + 10)

    async def send(
        self, text: str, *, agent: str = "support", key: str | None = None, wait: float = 0, **body: Any
    ) -> httpx.Response:
        """POST a message; `key` is its Idempotency-Key."""
        headers = {} if key is None else {"idempotency-key": key}
        body = {"agent": agent, "text": text, **body}
        return await self.http.post("/v1/messages", json=body, headers=headers, params={"wait": wait})

    async def start(self, text: str, **options: Any) -> str:
        """Send a message that must be accepted; answers with its run's id."""
        response = await self.send(text, **options)
        assert response.status_code == 202, response.text
        return str(response.json()["run_id"])

    async def run(self, run_id: str) -> Json:
        """The run as it is when it has ended, or waits for a person."""
        return await self.get(f"/v1/runs/{run_id}", wait=WAIT_S)

    async def ended(self, run_id: str) -> Json:
        """The run as it is when it has ended; whoever is asked meanwhile has decided, or will be too late."""

        async def has_ended() -> bool:
            return (await self.run(run_id))["completed_at"] is not None

        await until(has_ended)
        return await self.run(run_id)

    async def ask(self, text: str, **options: Any) -> Json:
        """Send a message; answers with its run when it has ended, or waits for a person."""
        return await self.run(await self.start(text, **options))

    async def pending(self, run: Json) -> list[Json]:
        """The confirmations that a run waits for."""
        found = await self.get("/v1/confirmations", status="pending", run_id=run["id"])
        return list(found["data"])

    async def confirmation_of(self, run_id: str) -> Json:
        """The confirmation that a run has asked for, as soon as it has, and whatever became of it since."""
        found: list[Json] = []

        async def is_there() -> bool:
            found[:] = (await self.get("/v1/confirmations", run_id=run_id))["data"]
            return bool(found)

        await until(is_there)
        return found[0]

    async def only_pending(self, run: Json) -> Json:
        """The one confirmation that a run waits for."""
        assert run["status"] == "requires_confirmation", run
        (confirmation,) = await self.pending(run)
        return confirmation

    async def decide(self, confirmation: Json, decision: str = "approve", **body: Any) -> httpx.Response:
        """Decide a confirmation."""
        body = {"decision": decision, "arguments_digest": confirmation["arguments_digest"], **body}
        return await self.http.post(f"/v1/confirmations/{confirmation['id']}/decision", json=body)

    async def transcript(self, conversation_id: str) -> list[tuple[str, str]]:
        """Who said what in a conversation."""
        found = await self.get(f"/v1/conversations/{conversation_id}/messages")
        return [(one["role"], one["text"]) for one in found["data"]]

    async def get(self, path: str, **parameters: Any) -> Json:
        """GET something that must be there."""
        response = await self.http.get(path, params=parameters)
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found
