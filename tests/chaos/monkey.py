"""What goes wrong: each part is killed at random, or deployed; and some are killed at the worst moments."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from tests.chaos.cast import Cast
from tests.chaos.people import Json, People
from tests.harness.conditions import until


@dataclass(frozen=True)
class Wanted:
    """How many of each fault there are to be, at least."""

    worker_kills: int
    server_kills: int
    database_kills: int
    api_kills: int
    provider_kills: int
    deploys: int


@dataclass
class Monkey:
    """Breaks things, one after the other, and counts what it broke."""

    cast: Cast
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def faults(self, wanted: Wanted) -> list[Callable[[], Awaitable[None]]]:
        """The faults that are wanted, in random order."""
        faults: list[Callable[[], Awaitable[None]]] = [
            *[self.kill_a_worker] * wanted.worker_kills,
            *[self.kill_the_server] * wanted.server_kills,
            *[self.kill_the_database] * wanted.database_kills,
            *[self.kill_an_api] * wanted.api_kills,
            *[self.kill_the_provider] * wanted.provider_kills,
            *[self.deploy] * wanted.deploys,
        ]
        self.random.shuffle(faults)
        return faults

    async def kill_a_worker(self) -> None:
        worker = self.random.choice(self.cast.workers)
        worker.kill()
        self.done["worker kills"] += 1
        await worker.start()

    async def kill_an_api(self) -> None:
        api = self.random.choice(self.cast.apis)
        api.kill()
        self.done["api kills"] += 1
        await api.start()

    async def kill_the_provider(self) -> None:
        self.cast.provider.kill()
        self.done["provider kills"] += 1
        await self.cast.provider.start()

    async def kill_the_server(self) -> None:
        self.cast.temporal.running.kill()
        self.done["server kills"] += 1
        await asyncio.sleep(self.random.uniform(0, 1))
        await self.cast.temporal.start()

    async def kill_the_database(self) -> None:
        self.cast.postgres.running.kill()
        self.done["database kills"] += 1
        await asyncio.sleep(self.random.uniform(0, 1))
        await self.cast.postgres.start()

    async def deploy(self) -> None:
        await self.random.choice([*self.cast.workers, *self.cast.apis]).deploy()
        self.done["deploys"] += 1

    async def rage(self, faults: list[Callable[[], Awaitable[None]]], rest_s: tuple[float, float]) -> None:
        """Do the faults, one after the other, with a rest between."""
        for fault in faults:
            await asyncio.sleep(self.random.uniform(*rest_s))
            await fault()


class Moments:
    """The worst moments: each is waited for, and then the one that is in the middle of it is killed."""

    def __init__(self, cast: Cast, people: People) -> None:
        self._cast = cast
        self._people = people

    async def after_the_effect(self) -> list[Json]:
        """The effect has happened, and its worker dies before it hears so: a tool of each kind."""
        markers = [f"{tool}:moment-{tool}" for tool in ("charge", "transfer", "ship")]
        async with httpx.AsyncClient(base_url=self._cast.recorder_url) as recorder:
            for marker in markers:
                await recorder.post("/hold", json={"marker": marker.partition(":")[2]})
            sent = [await self._people.send(f"do {marker}", f"key {marker}") for marker in markers]

            async def all_done() -> bool:
                found = [await recorder.get(f"/done/{marker.partition(':')[2]}") for marker in markers]
                return all(response.json()["done"] for response in found)

            await until(all_done)
            await self._kill_workers()
            await recorder.post("/let-go", json={})
        return sent

    async def after_the_reservation(self) -> list[Json]:
        """The call is reserved, and the tool has sent its request to somebody who does not read: its worker dies."""
        async with self._cast.recorder.frozen():
            sent = await self._people.send("do charge:moment-reserved", "key moment-reserved")
            await until(lambda: self._is("SELECT FROM tool_calls WHERE run_id = $1 AND status = 'dispatched'", sent))
            for worker in self._cast.workers:
                worker.kill()
        # What lay in the recorder's ear is heard now, if anything does, while the workers are coming back.
        await asyncio.gather(*(worker.start() for worker in self._cast.workers))
        return [sent]

    async def after_the_message_is_committed(self) -> list[Json]:
        """The message is stored, and its API dies before Temporal hears of it."""
        key = "key moment-committed"
        async with _stopped(self._cast):
            sending = asyncio.create_task(self._people.send("do transfer:moment-committed", key))
            await until(lambda: self._is_there("SELECT FROM messages WHERE idempotency_key = $1", key))
            await self._kill_apis()
        return [await sending]

    async def after_the_decision_is_stored(self) -> list[Json]:
        """The decision is stored, and its API dies before the workflow is woken."""
        sent = await self._people.send("do pay_out:moment-decided", "key moment-decided")
        asked: list[Json] = []

        async def is_asked() -> bool:
            found = await self._people.get("/v1/confirmations", run_id=sent["run_id"])
            asked[:] = found["data"]
            return bool(asked)

        await until(is_asked)
        async with _stopped(self._cast):
            deciding = asyncio.create_task(self._people.decide(asked[0], "bob", "approve"))
            stored = "SELECT FROM confirmations WHERE run_id = $1 AND status <> 'pending'"
            await until(lambda: self._is(stored, sent))
            await self._kill_apis()
        await deciding
        return [sent]

    async def _kill_workers(self) -> None:
        for worker in self._cast.workers:
            worker.kill()
        await asyncio.gather(*(worker.start() for worker in self._cast.workers))

    async def _kill_apis(self) -> None:
        for api in self._cast.apis:
            api.kill()
        await asyncio.gather(*(api.start() for api in self._cast.apis))

    async def _is(self, query: str, sent: Json) -> bool:
        return await self._is_there(query, sent["run_id"])

    async def _is_there(self, query: str, value: str) -> bool:
        return bool(await self._cast.rows(query, value))


class _stopped:
    """Temporal does not run while the block does."""

    def __init__(self, cast: Cast) -> None:
        self._temporal = cast.temporal

    async def __aenter__(self) -> None:
        self._temporal.running.kill()

    async def __aexit__(self, *_: object) -> None:
        await self._temporal.start()
