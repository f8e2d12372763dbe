"""Model calls by themselves, for no run: complete, stream, embed, generate. Each is recorded, whatever comes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from holdfast.domain.budgets import dollars
from holdfast.domain.errors import BudgetExceeded, InvalidInput, ModelError, NoValidAnswer, Stopped, Unavailable
from holdfast.domain.messages import ChatMessage
from holdfast.domain.model_calls import Attempt, Completion, Embeddings, StreamEvent, Usage
from holdfast.domain.storable import is_storable
from holdfast.llm.pool import ModelPool
from holdfast.llm.structured import MAX_REPAIRS, Malformed, Schema, instructed, sent_back, version_of
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.services.provider_keys import ProviderKeys
from holdfast.store import audit, budgets, switches
from holdfast.store.budgets import Reservation
from holdfast.store.engine import Database

Answer = TypeVar("Answer", Completion, Embeddings)
Listener = Callable[[StreamEvent], None]


@dataclass(frozen=True)
class Ask:
    """What a model is asked. `purpose` is kept with the call; `options` go to the provider, such as `max_tokens`."""

    alias: str
    messages: Sequence[ChatMessage]
    tools: Sequence[dict[str, Any]] = ()
    use_tools: bool = True
    purpose: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Call:
    """Whose call it is, for the record and for the budget: `worst_usd` is the most that it can cost."""

    tenant_id: str
    alias: str
    purpose: str | None
    worst_usd: Decimal

    def entry(self, outcome: str, detail: str | None = None) -> audit.Entry:
        """A call without an answer."""
        return audit.Entry(kind="model_call", outcome=outcome, alias=self.alias, purpose=self.purpose, detail=detail)


@dataclass(frozen=True)
class Generated:
    """A value that fits the schema. `usage` and `attempts` are those of every answer it took, `repairs` included."""

    value: Any
    alias: str
    model: str
    deployment: str
    prompt_version: str
    repairs: int
    usage: Usage
    attempts: tuple[Attempt, ...]
    latency_ms: int


class Models:
    """Asks the pool on behalf of a tenant.

    Args:
        database: keeps the record.
        pool: gives the pool, which may be made when it is first asked for.
        unusable: aliases of models.yaml that have no usable deployment, and the variables that would help.
        provider_keys: gives the tenant's own.
        slots: how many calls each tenant may have in flight.
    """

    def __init__(
        self,
        database: Database,
        pool: Callable[[], Awaitable[ModelPool]],
        unusable: dict[str, tuple[str, ...]],
        provider_keys: ProviderKeys,
        slots: TenantSlots,
    ) -> None:
        self._database = database
        self._slots = slots
        self._pool = pool
        self._unusable = unusable
        self._provider_keys = provider_keys

    async def complete(self, tenant_id: str, ask: Ask, listener: Listener | None = None) -> Completion:
        """An answer, once it is whole; `listener` hears it as it streams.

        Raises:
            InvalidInput: there is no such alias, or a text can't be encoded.
            Unavailable: the alias has no usable deployment.
            BudgetExceeded: the tenant's budget has no room for what the call may cost.
            Stopped: the tenant's kill switch is thrown.
            TooManyRequests: the tenant has as many calls in flight as it may.
            ModelsUnavailable: no deployment answered.
            ModelRequestRefused: the provider refuses the request.
        """
        pool = await self._pool_for(ask.alias, "messages", [*ask.messages, *ask.tools])
        worst_usd = pool.worst_case(ask.alias, [*ask.messages, *ask.tools], ask.options.get("max_tokens"))
        calling = partial(
            pool.complete,
            ask.alias,
            ask.messages,
            ask.tools,
            use_tools=ask.use_tools,
            listener=listener,
            provider_keys=await self._provider_keys.opened(tenant_id),
            **ask.options,
        )
        return await self._recorded(_Call(tenant_id, ask.alias, ask.purpose, worst_usd), calling)

    async def stream(self, tenant_id: str, ask: Ask) -> AsyncIterator[StreamEvent | Completion]:
        """An answer as it comes, and in the end the whole. Closing the iterator ends the provider's call.

        Raises:
            HoldfastError: as `complete` does.
        """
        heard: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        asking = asyncio.create_task(self.complete(tenant_id, ask, heard.put_nowait), name="streamed completion")
        asking.add_done_callback(lambda _: heard.put_nowait(None))
        try:
            while (event := await heard.get()) is not None:
                yield event
            yield await asking
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asking

    async def embed(self, tenant_id: str, alias: str, texts: Sequence[str], purpose: str | None = None) -> Embeddings:
        """A vector for each text.

        Raises:
            HoldfastError: as `complete` does.
        """
        pool = await self._pool_for(alias, "input", texts)
        call = _Call(tenant_id, alias, purpose, pool.worst_case(alias, texts))
        provider_keys = await self._provider_keys.opened(tenant_id)
        return await self._recorded(call, partial(pool.embed, alias, texts, provider_keys=provider_keys))

    async def generate(
        self, tenant_id: str, ask: Ask, schema: dict[str, Any], prompt_version: str | None = None
    ) -> Generated:
        """A value that fits a JSON Schema. An answer that does not fit is sent back, `MAX_REPAIRS` times at most.

        Raises:
            NoValidAnswer: the last answer does not fit either.
            HoldfastError: as `complete` does; also when the schema is wrong.
        """
        wanted = Schema(schema)
        version = prompt_version or version_of(ask.messages, wanted)
        answers: list[Completion] = []
        asked = replace(ask, messages=instructed(ask.messages, wanted))
        while True:
            answers.append(await self.complete(tenant_id, asked))
            try:
                value = wanted.read(answers[-1].text)
            except Malformed as malformed:
                if len(answers) > MAX_REPAIRS:
                    detail = f"{ask.alias}: {len(answers)} answers, and none fits the schema."
                    raise NoValidAnswer(detail, malformed.errors) from None
                asked = replace(asked, messages=[*asked.messages, *sent_back(answers[-1].text, malformed)])
            else:
                return _generated(value, version, answers)

    async def _pool_for(self, alias: str, field_name: str, content: Sequence[Any]) -> ModelPool:
        if alias in self._unusable:
            raise Unavailable(
                f"No model stands behind {alias!r} here: {' or '.join(self._unusable[alias])} is not set."
            )
        if not is_storable(content):
            raise InvalidInput(field_name, "It holds a NUL or half a surrogate pair, or is nested too deeply.")
        pool = await self._pool()
        if alias not in pool.aliases:
            raise InvalidInput("alias", f"There is no alias {alias!r}; known are {', '.join(pool.aliases)}.")
        return pool

    async def _recorded(self, call: _Call, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        async with self._slots.one(call.tenant_id):
            return await self._reserved_and_recorded(call, ask)

    async def _reserved_and_recorded(self, call: _Call, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        reservation = await self._reserve(call)
        try:
            answer = await ask()
        except ModelError as error:
            await self._record(call, call.entry("failed", str(error)), reservation)
            raise
        except asyncio.CancelledError:
            # In a task of its own: this one is being cancelled.
            await asyncio.shield(self._record(call, call.entry("cancelled"), reservation))
            raise
        await self._record(call, audit.answered(answer, purpose=call.purpose), reservation)
        return answer

    async def _reserve(self, call: _Call) -> Reservation | None:
        """Reserve what a call can cost at most; None: the tenant has no budget."""
        tenant_id, reservation = call.tenant_id, Reservation.by_itself(call.worst_usd)
        async with self._database.tenant(tenant_id) as connection:
            switch = await switches.standing(connection, tenant_id)
            if switch is not None:
                raise Stopped(str(switch))
            if not await budgets.lock(connection, tenant_id):
                return None
            if await budgets.reserve(connection, tenant_id, reservation):
                return reservation
            budget = await budgets.find(connection, tenant_id)
            detail = f"The budget has no room: {budget}, and this call may cost ${dollars(call.worst_usd)}."
            await audit.append(connection, tenant_id, call.entry("refused", detail))
        raise BudgetExceeded(detail)

    async def _record(self, call: _Call, entry: audit.Entry, reservation: Reservation | None) -> None:
        """Keep the record of a call; what it cost takes the place of what was reserved for it, in one transaction."""
        async with self._database.tenant(call.tenant_id) as connection:
            await audit.append(connection, call.tenant_id, entry)
            if reservation is not None:
                await budgets.settle(connection, call.tenant_id, reservation.reservation_id, entry.cost_usd)


def _generated(value: Any, version: str, answers: list[Completion]) -> Generated:
    last = answers[-1]
    return Generated(
        value=value,
        alias=last.alias,
        model=last.model,
        deployment=last.deployment,
        prompt_version=version,
        repairs=len(answers) - 1,
        usage=Usage.total([answer.usage for answer in answers]),
        attempts=tuple(attempt for answer in answers for attempt in answer.attempts),
        latency_ms=sum(answer.latency_ms for answer in answers),
    )
