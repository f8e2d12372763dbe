"""Who asks too slowly is dropped, and who is answered is not."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import uvicorn

from api.serving import _Server
from holdfast.dev.ports import free_port
from tests.harness.conditions import until

Send = Callable[[object], Awaitable[None]]


async def answer(scope: object, receive: object, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def _gone(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_who_asks_too_slowly_is_dropped() -> None:
    released = asyncio.Event()

    async def answer_late(scope: object, receive: object, send: Send) -> None:
        await released.wait()
        await answer(scope, receive, send)

    port = free_port()
    config = uvicorn.Config(answer_late, "127.0.0.1", port, log_config=None, lifespan="off", ws="none")
    server = _Server(config, 0.0, lambda: None)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    head = b"GET / HTTP/1.1\r\nhost: here\r\n"
    sent = {
        "nothing": b"",
        "half a head": head,
        "half a body": head + b"content-length: 9\r\n\r\n{",
        "all of it": head + b"\r\n",
        "an upgrade": head + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    }
    opened = {name: await asyncio.open_connection("127.0.0.1", port) for name in sent}
    for name, (_, writer) in opened.items():
        writer.write(sent[name])
    dropped = {name: asyncio.create_task(_gone(reader)) for name, (reader, _) in opened.items()}
    slow = ("nothing", "half a head", "half a body")

    assert all([await dropped[name] for name in slow])
    assert [dropped[name].done() for name in ("all of it", "an upgrade")] == [False, False]
    released.set()
    await asyncio.gather(*dropped.values())
    for _, writer in opened.values():
        writer.close()
    server.should_exit = True
    await serving


async def test_who_asks_again_and_again_is_waited_for_anew() -> None:
    port = free_port()
    config = uvicorn.Config(
        answer, "127.0.0.1", port, log_config=None, lifespan="off", ws="none", timeout_keep_alive=60
    )
    server = _Server(config, 50.0, lambda: None)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    now = time.monotonic()
    for number in range(3):
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
        server._drop_who_asks_too_slowly(now + number * 100)
    server._drop_who_asks_too_slowly(now + 300)

    assert await _gone(reader)
    writer.close()
    server.should_exit = True
    await serving
