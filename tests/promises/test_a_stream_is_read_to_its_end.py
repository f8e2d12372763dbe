"""What is streamed is read to its end: through a worker's death, a crash of the database, and by hundreds at once."""

import asyncio
import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from holdfast.dev.postgres import Postgres
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.processes import KillableStage, api_process
from tests.harness.reading import Told, gathered, is_gapless, read, shown, types, whole_log
from tests.harness.servers import Servers
from tests.harness.stage import Stage, playing

Reader = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_COUNTED = "One two three four five six seven eight nine ten."

_READERS = 500

#: What a reader may take of the API's memory, in bytes. (Measured: 51 kB.)
_MOST_A_READER = 200_000


async def test_the_worker_is_killed_in_the_middle_of_a_text(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    """Another takes it back, and begins anew."""
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(Stalls(Text("One two three four."), after=4), Text("All of it, again."))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    log = [await anext(reading) for _ in range(3)]

    killable.worker.kill()
    await killable.worker.start()
    log += [told async for told in reading]

    assert types(log) == [
        "run.queued",
        "run.started",
        "message.delta",
        "message.reset",
        "message.delta",
        "message.completed",
        "run.completed",
    ]
    assert is_gapless(log)
    assert shown(log[:3]) in "One two three four."
    assert shown(log) == "All of it, again." == (await ada.run(run_id))["reply"]
    assert log == await whole_log(ada, run_id)


async def test_postgresql_crashes_in_the_middle_of_a_text(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """It takes the pieces of text with it; nobody sees a wrong text, and all see the whole."""
    postgres = Postgres(tmp_path / "postgres", tmp_path / "postgres.log")
    await postgres.start()
    servers = Servers(postgres.url(), running_servers.temporal_address)
    try:
        await servers.prepare()
        async with playing(servers, provider, f"crash-{uuid.uuid4().hex[:12]}") as stage:
            ada = await stage.caller(new_tenant())
            run_id, before, reading = await _begun(ada, provider)
            postgres.running.kill()
            await postgres.start()
            assert await stage.rows("SELECT FROM deltas") == []
            after: list[Told] = []
            reading_anew = asyncio.create_task(gathered(read(ada, run_id), after))
            await until(lambda: len(after) == 2)
            provider.release()
            await asyncio.gather(reading, reading_anew)
            logs = [before, after, await whole_log(ada, run_id), before[:3] + await whole_log(ada, run_id, 3)]
            reply = (await ada.run(run_id))["reply"]
    finally:
        postgres.stop()

    for log in logs:
        assert [told.type for told in log][-2:] == ["message.completed", "run.completed"]
        assert shown(log) == _COUNTED == reply
        assert [told.seq for told in log] == sorted({told.seq for told in log})
        for told in range(len(log)):
            assert _COUNTED.startswith(shown(log[:told]))


async def test_nobody_can_be_told_that_anything_has_changed(
    ada: Caller, stage: Stage, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """As if every process died between a commit and its telling: all is seen, only later.

    And no transaction of a message notifies, or PostgreSQL would refuse it here.
    """
    await stage.rows("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    try:
        run_id, seen, reading = await _begun(ada, provider)
        provider.release()
        await reading
        provider.script(ToolCalls([("look_up", {"marker": "m"})]), Text("Found."))
        reply = (await ada.ask("look"))["reply"]
    finally:
        await stage.rows("GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO PUBLIC")

    assert seen == await whole_log(ada, run_id)
    assert shown(seen) == _COUNTED
    assert reply == "Found."
    assert "are not told, and will be seen late: InsufficientPrivilegeError" in caplog.text


async def test_hundreds_read_at_once_in_bounded_memory(
    ada: Caller, stage: Stage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """With the few connections to the database that an API has, and while others use it."""
    run_id, _, reading = await _begun(ada, provider)
    variables = {"HOLDFAST_STREAMS_PER_PERSON": "0"}
    async with api_process(stage, tmp_path / "api.log", **variables) as (url, process):
        first = await _crowd(ada, url, run_id, 10)
        before = psutil.Process(process.pid).memory_info().rss
        readers = await _crowd(ada, url, run_id, _READERS)
        grown = psutil.Process(process.pid).memory_info().rss - before
        busy = await ada.http.get(f"{url}/v1/runs/{run_id}")
        connections = await stage.rows("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        provider.release()
        texts = [await _last_text(*reader) for reader in [*first, *readers]]
    await reading

    assert busy.json()["status"] == "running"
    assert connections[0]["count"] < 40
    assert texts == [_COUNTED] * (len(first) + _READERS)
    assert grown < _READERS * _MOST_A_READER


async def _begun(ada: Caller, provider: ScriptedProvider) -> tuple[str, list[Told], asyncio.Task[None]]:
    """A run in the middle of its answer; what is read of it; and whoever reads it."""
    provider.script(Stalls(Text(_COUNTED), after=4))
    run_id = await ada.start("count")
    seen: list[Told] = []
    reading = asyncio.create_task(gathered(read(ada, run_id), seen))
    await until(lambda: len(seen) >= 3)
    return run_id, seen, reading


async def _crowd(ada: Caller, url: str, run_id: str, size: int) -> list[Reader]:
    """Readers that have read what there is, each with a connection of its own."""
    return list(await asyncio.gather(*(_reader(ada, url, run_id) for _ in range(size))))


async def _reader(ada: Caller, url: str, run_id: str) -> Reader:
    # Without an HTTP library, which would take longer than what it reads.
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {ada.key}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"message.delta")
    return reader, writer


async def _last_text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    await reader.readuntil(b"event: message.completed\ndata: ")
    data = await reader.readline()
    await reader.readuntil(b"event: run.completed\n")
    writer.close()
    return str(json.loads(data)["text"])
