"""`/livez` and `/readyz` of the worker, on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.worker import Worker

from holdfast.domain.errors import HoldfastError
from holdfast.store.engine import Database

_ANSWERS = {200: b"OK", 404: b"Not Found", 503: b"Service Unavailable"}


@asynccontextmanager
async def serving(host: str, port: int | None, worker: Worker, database: Database) -> AsyncIterator[None]:
    """Answer health checks while the block runs; `port` None: don't."""
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readline()
        status = await _status(request, worker, database)
        body = _ANSWERS[status]
        writer.write(b"HTTP/1.0 %d %s\r\ncontent-length: %d\r\n\r\n%s" % (status, body, len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, host, port)
    async with server:
        yield


async def _status(request: bytes, worker: Worker, database: Database) -> int:
    if request.startswith(b"GET /livez "):
        return 200
    if not request.startswith(b"GET /readyz "):
        return 404
    try:
        await database.check_role()
    except HoldfastError:
        return 503
    return 200 if worker.is_running else 503
