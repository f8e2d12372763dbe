"""Answers in OpenAI's forms: what the log of a run tells, put through a projection until the answer is over.

Nothing is held for an answer but its reader: whoever asks again, wherever, is told the same.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from api.projections.chat import ChatHead, ChatStream
from api.projections.responses import Head, ResponseStream
from api.wiring import Services
from holdfast.domain.client_tools import as_stored
from holdfast.domain.errors import Unavailable
from holdfast.domain.model_calls import Usage
from holdfast.domain.permissions import Caller
from holdfast.domain.runs import OPEN, RunStatus
from holdfast.services.exchanges import Request
from holdfast.services.runs import RunDetail
from holdfast.streaming.tail import MayGoOn, always

Json = dict[str, Any]

#: For how long a request that wants a whole answer is held: a little less than OpenAI's SDKs wait for one.
HELD_S = 570.0

#: What became of a run, as a response has it.
_STATUS = {RunStatus.FAILED: "failed", RunStatus.CANCELLED: "cancelled"}


class ResponseAnswer:
    """The answer to a request, as a response."""

    def __init__(self, found: Services, caller: Caller, request: Request) -> None:
        self._found = found
        self._caller = caller
        self._request = request
        run = request.run
        self._stream = ResponseStream(
            Head(
                place=request.place,
                agent=run.agent,
                conversation_id=run.conversation_id,
                created_at=run.created_at,
                metadata=request.metadata,
                tools=tuple(as_stored(request.client_tools)),
            )
        )

    async def events(self, *, to_the_end: bool = True, may_go_on: MayGoOn = always) -> AsyncGenerator[Json]:
        """The events of its stream, up to its last, unless this process stops before, or the reader may not go on."""
        stream, place = self._stream, self._request.place
        had_ended = await _has_ended(self._found, self._caller, self._request)
        for event in stream.begin():
            yield event
        async with self._found.events.answering(
            self._caller, place, to_the_end=to_the_end, may_go_on=may_go_on
        ) as told:
            async for one in told:
                for event in stream.take(one):
                    yield event
                if stream.is_over:
                    break
        detail = await self._found.runs.answering(self._caller, place.run_id)
        if had_ended and not stream.is_over and await may_go_on():
            status = _STATUS.get(detail.run.status, "completed")
            for event in stream.close(status, detail.reply, detail.run.error):
                yield event
        if stream.is_over:
            yield stream.last_event(_usage(detail, stream.first_step, stream.last_step))

    async def whole(self, wait_s: float = 0) -> Json:
        """The response when it is over, or as it stands when the time is up."""
        last: Json = {}
        try:
            async with asyncio.timeout(wait_s or None), aclosing(self.events(to_the_end=wait_s > 0)) as events:
                async for event in events:
                    last = event
        except TimeoutError:
            pass
        if self._stream.is_over and "response" in last:
            return dict(last["response"])
        found = self._stream.response()
        is_queued = not wait_s and self._request.run.status is RunStatus.QUEUED and not found["output"]
        return {**found, "status": "queued"} if is_queued else found


class ChatAnswer:
    """The answer to a request, as a chat completion."""

    def __init__(self, found: Services, caller: Caller, request: Request) -> None:
        self._found = found
        self._caller = caller
        self._request = request
        run = request.run
        self._head = ChatHead(run.run_id, run.agent, run.created_at)
        self._stream = ChatStream(run.run_id)

    async def chunks(self, *, with_usage: bool, may_go_on: MayGoOn = always) -> AsyncGenerator[Json]:
        """The chunks of its stream; the last one has an error, if it ends before the answer does."""
        yield self._head.chunk({"role": "assistant", "content": ""})
        async with aclosing(self._deltas(may_go_on)) as deltas:
            async for delta in deltas:
                yield self._head.chunk(delta)
        if not self._stream.is_whole:
            # Clients take a stream that just ends for a whole answer.
            yield cut_off(f"The stream ended early, and the run goes on: GET /v1/runs/{self._head.run_id}.")
            return
        yield self._head.chunk({}, self._stream.finish_reason)
        if with_usage:
            yield self._head.chunk(None, usage=await self._usage())

    async def whole(self) -> Json:
        """The completion.

        Raises:
            Unavailable: the run goes on for longer than a request is held.
        """
        try:
            async with asyncio.timeout(HELD_S), aclosing(self._deltas()) as deltas:
                async for _ in deltas:
                    pass
        except TimeoutError:
            pass
        if not self._stream.is_whole:
            raise Unavailable("The run goes on; send the same again to go on waiting for it.")
        return self._head.completion(self._stream.message, self._stream.finish_reason, await self._usage())

    async def _deltas(self, may_go_on: MayGoOn = always) -> AsyncGenerator[Json]:
        stream = self._stream
        had_ended = await _has_ended(self._found, self._caller, self._request)
        async with self._found.events.answering(self._caller, self._request.place, may_go_on=may_go_on) as told:
            while not stream.is_over:
                try:
                    async with asyncio.timeout(self._found.confirmation_wait_s if stream.is_quiet else None):
                        one = await anext(told)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    for delta in stream.wait_no_longer():
                        yield delta
                    return
                for delta in stream.take(one):
                    yield delta
        if had_ended and not stream.is_over and await may_go_on():
            for delta in stream.close((await self._detail()).reply):
                yield delta

    async def _usage(self) -> Usage:
        return _usage(await self._detail(), self._stream.first_step, self._stream.last_step)

    async def _detail(self) -> RunDetail:
        return await self._found.runs.answering(self._caller, self._request.run.run_id)


def cut_off(message: str) -> Json:
    """What OpenAI's API says in a stream that goes wrong, and its SDKs raise."""
    return {"error": {"message": message, "type": "unavailable", "param": None, "code": "unavailable"}}


async def _has_ended(found: Services, caller: Caller, request: Request) -> bool:
    """Whether the run that answers has ended. Asked before its log is read: the end that is not there then is gone.

    One that ends meanwhile has its end in the log, for whoever reads on.
    """
    status = request.run.status
    if status is RunStatus.MERGED:
        status = (await found.runs.answering(caller, request.place.run_id)).run.status
    return status not in OPEN


def _usage(detail: RunDetail, first_step: int, last_step: int | None) -> Usage:
    """What the model calls of an answer took: those of its run from after one step up to another."""
    return Usage.total(
        [
            step.usage
            for step in detail.steps
            if step.step > first_step and (last_step is None or step.step <= last_step)
        ]
    )
