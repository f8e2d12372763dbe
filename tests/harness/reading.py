"""Reading along in a run's event log, as a program would."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.harness.caller import Caller


@dataclass(frozen=True)
class Told:
    """An event as it came over the wire."""

    seq: int
    type: str
    data: dict[str, Any]


async def read(caller: Caller, run_id: str, after: int | None = None, url: str | None = None) -> AsyncIterator[Told]:
    """The events of a run as they come, from the API at `url`, until the API ends the stream."""
    headers = {} if after is None else {"last-event-id": str(after)}
    path = f"{url or ''}/v1/runs/{run_id}/events"
    async with caller.http.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for told in parsed(response.aiter_lines()):
            yield told


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[Told]:
    """Server-sent events out of lines; comments are left out."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line and fields:
            yield Told(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def told_in(response: httpx.Response) -> list[dict[str, Any]]:
    """What a stream told whose client reads the data of its events alone."""
    assert response.status_code == 200, response.text
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(one) for one in data]


async def whole_log(caller: Caller, run_id: str, after: int | None = None, url: str | None = None) -> list[Told]:
    """The log of a run, up to its end."""
    return [told async for told in read(caller, run_id, after, url)]


async def gathered(reading: AsyncIterator[Told], into: list[Told]) -> None:
    """Read on, and put what is read where it can be looked at meanwhile."""
    async for told in reading:
        into.append(told)


def types(log: list[Told]) -> list[str]:
    """The types of events, one after the other; pieces of text count as one."""
    found: list[str] = []
    for told in log:
        if told.type != "message.delta" or found[-1:] != ["message.delta"]:
            found.append(told.type)
    return found


def shown(log: list[Told]) -> str:
    """The text that stands on a reader's screen in the end."""
    pieces: list[tuple[int, str]] = []
    for told in log:
        if told.type == "message.delta":
            pieces.append((told.data["attempt"], told.data["text"]))
        elif told.type == "message.reset":
            pieces = [piece for piece in pieces if piece[0] != told.data["attempt"]]
        elif told.type == "message.completed":
            pieces = [(0, told.data["text"])]
    return "".join(text for _, text in pieces)


def is_gapless(log: list[Told]) -> bool:
    """Whether numbers count from 1 without a gap."""
    return [told.seq for told in log] == list(range(1, len(log) + 1))
