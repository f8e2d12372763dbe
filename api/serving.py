"""Serving an application until a signal comes."""

import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

#: Seconds that requests in hand have to end at a stop.
_GRACE_S = 10

#: How often uvicorn looks at what there is to do, a second.
_TICKS_A_SECOND = 10

#: Seconds after which a client that takes nothing of what was sent is dropped.
UNREAD_S = 30.0


async def serve(
    app: FastAPI, host: str, port: int, *, unread_s: float = UNREAD_S, on_stop: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in hand end.

    Args:
        app: what is served.
        host: the address to listen on.
        port: the port to listen on.
        unread_s: after how many seconds a client that takes nothing of what was sent, or has not sent the whole of its
            request, is dropped.
        on_stop: called when the signal has come, to have streams without an end of their own end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        # One kind of connection, whatever else is installed: `_Server` looks into them.
        http="h11",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
    )
    with listen(config, unread_s) as listening:
        await _Server(config, unread_s, on_stop).serve([listening])


def listen(config: uvicorn.Config, unread_s: float) -> socket.socket:
    """A socket that listens, with what its connections inherit.

    What was sent and is not taken for `unread_s` seconds ends a connection: what is buffered for a reader that does not
    read would stay for as long as the reader likes. (Linux alone knows how.)
    """
    listening = config.bind_socket()
    # asyncio sets it for sockets that it makes itself. Without it a body waits for the client to acknowledge the
    # headers, which it delays by 40 ms from the second answer of a connection on.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_s * 1000))
    return listening


class _Server(uvicorn.Server):
    """Uvicorn waits for a request as long as its client likes, and has a connection open for it; this does not."""

    def __init__(self, config: uvicorn.Config, patience_s: float, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._patience_s = patience_s
        # With the request before, if there was one: when that is another, it is waited for anew.
        self._waiting: dict[Any, tuple[Any, float]] = {}
        self._on_stop = on_stop

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            self._drop_who_asks_too_slowly(time.monotonic())
        return await super().on_tick(counter)

    def _drop_who_asks_too_slowly(self, now: float) -> None:
        before, self._waiting = self._waiting, {}
        connections: set[Any] = set(self.server_state.connections)
        for connection in filter(_is_waited_for, connections):
            cycle, since = before.get(connection, (connection.cycle, now))
            self._waiting[connection] = (connection.cycle, since if cycle is connection.cycle else now)
        for connection, (_, since) in self._waiting.items():
            if now - since > self._patience_s:
                connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def _is_waited_for(connection: Any) -> bool:
    """Whether a client has yet to send its request, or the rest of it."""
    cycle = connection.cycle
    return cycle is None or cycle.response_complete or bool(cycle.more_body)
