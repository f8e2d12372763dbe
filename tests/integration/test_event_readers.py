"""Whoever reads along reads all of it: on any process, through restarts and broken connections, in any number."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import make_url

from holdfast.domain.events import ToolCallStarted
from holdfast.store import changes, event_log
from holdfast.store.changes import LOG, STATUS, Change
from holdfast.store.engine import Database, create_engine
from holdfast.streaming.herald import Herald
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.processes import api_process
from tests.harness.reading import Told, gathered, is_gapless, read, shown, whole_log
from tests.harness.stage import Stage, serving_api

_ESTABLISHED = "01"

_LISTENING = "SELECT pid FROM pg_stat_activity WHERE query ~ '^LISTEN' AND datname = current_database()"
_TELLING = "SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_notify' AND datname = current_database()"

COUNTED = "One two three four five six seven eight nine ten."


async def begun(ada: Caller, provider: ScriptedProvider) -> str:
    """A run in the middle of its answer."""
    provider.script(Stalls(Text(COUNTED), after=4))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    while (await anext(reading)).type != "message.delta":
        pass
    await reading.aclose()  # type: ignore[attr-defined]  # an async generator, though typed as an iterator
    return run_id


async def test_on_two_processes_and_through_a_restart(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run_id = await begun(ada, provider)
    here: list[Told] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(gathered(read(ada, run_id), here))
        async with serving_api(stage.database_url, stage.task_queue) as other:
            there = read(ada, run_id, url=other)
            before = [await anext(there) for _ in range(3)]
            await there.aclose()  # type: ignore[attr-defined]
        provider.release()
        async with serving_api(stage.database_url, stage.task_queue) as started_again:
            after = await whole_log(ada, run_id, after=before[-1].seq, url=started_again)

    assert before + after == here == await whole_log(ada, run_id)
    assert is_gapless(here)
    assert shown(here) == COUNTED == (await ada.run(run_id))["reply"]


async def test_the_api_is_killed(ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path) -> None:
    run_id = await begun(ada, provider)
    seen: list[Told] = []
    async with api_process(stage, tmp_path / "api.log") as (url, process):
        reading = asyncio.create_task(gathered(read(ada, run_id, url=url), seen))
        await until(lambda: len(seen) >= 3)
        process.kill()
        await asyncio.wait([reading])
        assert reading.exception() is not None, "it was cut off"
    provider.release()
    async with api_process(stage, tmp_path / "api.log") as (url, _):
        seen += await whole_log(ada, run_id, after=seen[-1].seq, url=url)

    assert seen == await whole_log(ada, run_id)


async def test_an_api_that_stops_ends_its_streams(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run_id = await begun(ada, provider)
    seen: list[Told] = []
    async with serving_api(stage.database_url, stage.task_queue) as other:
        reading = asyncio.create_task(gathered(read(ada, run_id, url=other), seen))
        await until(lambda: len(seen) >= 3)
    await asyncio.wait([reading])
    provider.release()

    assert seen + await whole_log(ada, run_id, after=seen[-1].seq) == await whole_log(ada, run_id)


async def test_the_listening_connections_are_cut(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run_id = await begun(ada, provider)
    seen: list[Told] = []
    reading = asyncio.create_task(gathered(read(ada, run_id), seen))
    await until(lambda: len(seen) >= 3)
    cut = await stage.rows(f"SELECT pg_terminate_backend(pid) FROM ({_LISTENING}) listening")
    provider.release()
    await reading
    await until(lambda: _is_listening(stage))

    assert cut
    assert seen == await whole_log(ada, run_id)
    assert shown(seen) == COUNTED


async def _is_listening(stage: Stage) -> bool:
    return bool(await stage.rows(_LISTENING))


async def test_a_crash_of_the_database_has_emptied_the_deltas(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    run_id = await begun(ada, provider)
    seen: list[Told] = []
    reading = asyncio.create_task(gathered(read(ada, run_id), seen))
    await until(lambda: len(seen) >= 3)
    await stage.rows("DELETE FROM deltas WHERE run_id = $1", run_id)
    provider.release()
    await reading
    log = await whole_log(ada, run_id)

    assert shown(seen) == shown(log) == COUNTED == (await ada.run(run_id))["reply"]
    for told in range(len(log)):
        assert COUNTED.startswith(shown(log[:told])), "nobody is shown a text without its beginning"
    assert [told.type for told in log if told.type != "message.delta"] == [
        told.type for told in seen if told.type != "message.delta"
    ]
    (unlogged,) = await stage.rows("SELECT relpersistence FROM pg_class WHERE relname = 'deltas'")
    assert unlogged["relpersistence"] == b"u"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux drops who does not read")
async def test_who_does_not_read_or_does_not_ask_is_dropped(ada: Caller, stage: Stage, tmp_path: Path) -> None:
    run = await ada.ask("hello")
    await stage.rows(
        "INSERT INTO events (tenant_id, run_id, seq, type, data)"
        " SELECT $1, $2, 100 + n, 'message.completed', json_build_object('text', repeat('x', 100000))"
        " FROM generate_series(1, 500) n",
        ada.tenant_id,
        run["id"],
    )
    async with api_process(stage, tmp_path / "api.log", HOLDFAST_API_UNREAD_S="1") as (url, _):
        address = urlsplit(url)
        where = (str(address.hostname), int(address.port or 0))
        with socket.create_connection(where) as silent, socket.create_connection(where) as slow:
            slow.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n{")
            await until(lambda: not _is_served(address.port))
            assert [await asyncio.to_thread(_until_reset, one) for one in (silent, slow)] == [0, 0]
        with socket.create_connection(where) as lazy:
            key = f"authorization: Bearer {ada.key}"
            request = f"GET /v1/runs/{run['id']}/events?after=50 HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}\r\n\r\n"
            await asyncio.to_thread(lazy.sendall, request.encode())
            await until(lambda: not _is_served(address.port))
            received = await asyncio.to_thread(_until_reset, lazy)

    assert received < 40_000_000


def _is_served(port: int | None) -> bool:
    """Whether the server's end of a connection to a port is there."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == _ESTABLISHED for line in lines)


def _until_reset(connection: socket.socket) -> int:
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += len(part)
    return received


async def test_numbers_follow_commits_however_many_write(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    """A reader that sees a number has seen all before it, while transactions of many kinds write at once."""
    run_id = await begun(ada, provider)
    tool = ("call_x", "look_up", 1)

    async def write(number: int) -> None:
        async with stage.database.tenant(ada.tenant_id) as connection:
            await event_log.append(connection, ada.tenant_id, run_id, *[ToolCallStarted(*tool)] * (number % 3 + 1))
            if number % 5 == 0:
                await connection.rollback()

    seen: list[Told] = []
    reading = asyncio.create_task(gathered(read(ada, run_id), seen))
    await asyncio.gather(*(write(number) for number in range(60)))
    provider.release()
    await reading

    assert is_gapless(seen)
    assert seen == await whole_log(ada, run_id)
    (row,) = await stage.rows("SELECT last_seq FROM runs WHERE run_id = $1", run_id)
    assert row["last_seq"] == len(seen)


async def test_what_a_transaction_changed_is_told_after_its_commit_alone(stage: Stage) -> None:
    told: list[Collection[Change]] = []
    engine = create_engine(stage.database_url, pool_size=1)
    database = Database(engine, told.append)
    async with database.tenant("somebody") as connection:
        changes.note(connection, Change(LOG, "a run"), Change(LOG, "a run"))
        before = list(told)
    with contextlib.suppress(LookupError):
        async with database.tenant("somebody") as connection:
            changes.note(connection, Change(LOG, "another"))
            raise LookupError
    async with database.tenant("somebody"):
        pass
    await engine.dispose()

    assert before == []
    assert told == [{Change(LOG, "a run")}]


@asynccontextmanager
async def hearing(stage: Stage) -> AsyncIterator[list[Change]]:
    """What is told while the block runs, to whomever."""
    heard: list[Change] = []
    connection = await asyncpg.connect(make_url(stage.database_url).set(drivername="postgresql").render_as_string())
    try:
        for channel in (STATUS, LOG):
            await connection.add_listener(channel, lambda *told: heard.append(Change(*map(str, told[2:]))))
        yield heard
    finally:
        await connection.close()


async def test_those_who_wait_are_told_at_once(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    """And not only found by a look."""
    provider.script(ToolCalls([("send", {"marker": ada.tenant_id})]))
    async with hearing(stage) as heard:
        run = await ada.ask("send it")
        told = {Change(STATUS, run["id"]), Change(LOG, run["id"])}
        await until(lambda: told <= set(heard))
        heard.clear()
        await ada.decide(await ada.only_pending(run), "reject")
        await ada.ended(run["id"])
        await until(lambda: told <= set(heard))


async def test_what_changes_while_others_are_told_is_told_next(stage: Stage) -> None:
    engine = create_engine(stage.database_url, pool_size=1)
    herald = Herald(engine)
    async with hearing(stage) as heard:
        herald.tell([Change(LOG, "first")])
        await asyncio.sleep(0)
        for number in range(100):
            herald.tell([Change(LOG, f"run {number % 50}")])
        await herald.close()
        await until(lambda: len(heard) >= 51)
    await engine.dispose()

    assert {change.run_id for change in heard} == {"first", *(f"run {number}" for number in range(50))}
    assert len(heard) == 51


async def test_the_connection_that_tells_is_cut(stage: Stage) -> None:
    engine = create_engine(stage.database_url, pool_size=1)
    herald, before, after = Herald(engine), Change(LOG, "before"), Change(LOG, "after")
    async with hearing(stage) as heard:
        herald.tell([before])
        await until(lambda: before in heard)
        cut = await stage.rows(f"SELECT pg_terminate_backend(pid) FROM ({_TELLING}) telling")

        def is_told() -> bool:
            herald.tell([after])
            return after in heard

        await until(is_told)
    await herald.close()
    await engine.dispose()

    assert cut


async def test_an_error_that_nobody_foresaw_does_not_end_all_telling(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [asyncpg.InternalClientError("cannot switch to state 12")]
    tell = changes.tell

    async def tell_later(driver: Any, committed: Collection[Change]) -> None:
        if failing:
            raise failing.pop()
        await tell(driver, committed)

    monkeypatch.setattr(changes, "tell", tell_later)
    engine = create_engine(stage.database_url, pool_size=1)
    herald = Herald(engine)
    async with hearing(stage) as heard:
        for run_id in ("untold", "told"):
            herald.tell([Change(LOG, run_id)])
            await herald.close()
        await until(lambda: bool(heard))
    await engine.dispose()

    assert heard == [Change(LOG, "told")]


async def test_a_database_that_is_away_is_told_nothing_and_nobody_waits_for_it() -> None:
    away = create_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing", pool_size=1)
    herald = Herald(away)
    herald.tell([Change(LOG, "a run")])
    await herald.close()
    await away.dispose()
