"""Serving an application in the event loop that runs already, beside other work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from holdfast.dev.ports import free_port
from holdfast.domain.errors import Unavailable


@asynccontextmanager
async def serving(app: Any, port: int | None = None, on_stop: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """Serve an ASGI application on a loopback port (a free one by default) while the block runs; gives its URL.

    `on_stop` is called before the requests in hand are waited for.

    Raises:
        Unavailable: the application did not start.
    """
    port = port or free_port()
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve(), name=f"serving on {port}")
    try:
        while not server.started:
            if task.done():
                raise Unavailable(f"the application on port {port} did not start")
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        on_stop()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Leaves signals alone: Ctrl-C is for the process that serves this beside its other work."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
