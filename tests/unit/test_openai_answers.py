"""Answers in OpenAI's forms at the moments that are hard to hit with a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import openai
import pytest
from fastapi import Request as HttpRequest
from openai.types.chat import ChatCompletionChunk

from api.open_streams import OpenStream
from api.openai_answers import ChatAnswer, ResponseAnswer
from api.openai_route import as_lines, while_heard
from holdfast.domain import events
from holdfast.domain.errors import Unavailable
from holdfast.domain.events import Event, LoggedEvent
from holdfast.domain.exchanges import Place
from holdfast.domain.model_calls import Usage
from holdfast.domain.runs import RunStatus
from holdfast.services.exchanges import Request
from holdfast.services.run_events import Told

RUN = "run_01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(status: RunStatus) -> Any:
    return SimpleNamespace(
        run_id=RUN, agent="support", conversation_id="conv_1", created_at=NOW, status=status, error=None
    )


@dataclass
class Ending:
    """A run that ends right after its log was read."""

    log: list[Event] = field(default_factory=list)
    confirmation_wait_s: float = 1.0

    @property
    def events(self) -> Any:
        return SimpleNamespace(answering=self._told)

    @property
    def runs(self) -> Any:
        return SimpleNamespace(answering=self._detail)

    @asynccontextmanager
    async def _told(self, *_: Any, **__: Any) -> AsyncIterator[AsyncIterator[Told]]:
        async def told() -> AsyncIterator[Told]:
            for seq, event in enumerate(self.log, 1):
                yield Told(RUN, 0, LoggedEvent(seq, event.TYPE, event.data), is_before=False)

        yield told()

    async def _detail(self, *_: Any) -> Any:
        return SimpleNamespace(run=run(RunStatus.COMPLETED), reply="Hello.", steps=[], usage=Usage(0, 0))


def asked(status: RunStatus) -> Any:
    return Request(Place(RUN), run(status), {}, ())


def texts(response: Any) -> list[str]:
    return [part["text"] for item in response["output"] for part in item["content"]]


async def test_a_run_that_ends_while_it_is_looked_at_is_told_as_it_stood() -> None:
    found: Any = Ending([events.RunStarted(), events.MessageCompleted(1, "Hello.")])
    caller: Any = None

    seen = await ResponseAnswer(found, caller, asked(RunStatus.RUNNING)).whole()
    assert (seen["status"], texts(seen)) == ("in_progress", ["Hello."])
    # And of a chat whose process stops then, nothing is made up, and its client knows that it is not all.
    chunks = ChatAnswer(found, caller, asked(RunStatus.RUNNING)).chunks(with_usage=False)
    lines = b"".join([line async for line in as_lines(chunks, named=False)])
    response = httpx.Response(200, content=lines, request=httpx.Request("POST", "http://test"))
    stream = openai.Stream(cast_to=ChatCompletionChunk, response=response, client=openai.OpenAI(api_key="none"))
    said = [next(stream).choices[0] for _ in range(2)]
    assert [(choice.delta.content, choice.finish_reason) for choice in said] == [("", None), ("Hello.", None)]
    with pytest.raises(openai.APIError, match="ended early"):
        next(stream)
    assert b"[DONE]" not in lines


async def test_a_chat_that_is_cut_off_before_it_says_what_waits_is_no_whole_answer() -> None:
    question = events.ConfirmationRequested(
        "conf_a", "call", "call_a", "pay", {}, "0" * 64, "pay: confirm", NOW, "reject"
    )
    found: Any = Ending([events.ToolCallProposed("call_a", 1, "pay", {}, "irreversible"), question])
    caller: Any = None

    chunks = ChatAnswer(found, caller, asked(RunStatus.REQUIRES_CONFIRMATION)).chunks(with_usage=True)
    assert "ended early" in [chunk async for chunk in chunks][-1]["error"]["message"]
    with pytest.raises(Unavailable):
        await ChatAnswer(found, caller, asked(RunStatus.REQUIRES_CONFIRMATION)).whole()


async def test_a_run_whose_log_is_gone_has_its_reply() -> None:
    found: Any = Ending()
    caller: Any = None
    for status in (RunStatus.COMPLETED, RunStatus.MERGED):
        seen = await ResponseAnswer(found, caller, asked(status)).whole()
        assert (seen["status"], texts(seen)) == ("completed", ["Hello."])
        assert (await ChatAnswer(found, caller, asked(status)).whole())["choices"][0]["message"]["content"] == "Hello."


async def test_nobody_is_waited_for_who_has_left() -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def answer() -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def at_once() -> dict[str, Any]:
        return {"a": 1}

    request, reading = HttpRequest({"type": "http"}, receive), cast(OpenStream, None)
    assert await while_heard(request, reading, at_once()) == {"a": 1}
    waiting = asyncio.create_task(while_heard(request, reading, answer()))
    await asyncio.sleep(0)
    left.set()
    assert await waiting == {}
    assert ended.is_set()
