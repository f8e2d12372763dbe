"""Servers that answer byte for byte as they are told, and an Internet in which public addresses lead to them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore

#: What is done with a connection once a request has come; then it is closed.
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    head: str
    body: bytes

    @property
    def line(self) -> str:
        return self.head.partition("\r\n")[0]

    @property
    def headers(self) -> dict[str, str]:
        lines = [line.partition(": ") for line in self.head.split("\r\n")[1:] if line]
        return {name: value for name, _, value in lines}


@dataclass
class Server:
    """Answers each request with the next of its answers, the last one again and again."""

    answers: list[Answer]
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = Received(head, b"").headers.get("content-length", "0")
            self.requests.append(Received(head, await reader.readexactly(int(length))))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away, as some are meant to
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on a loopback port. `names` holds the name that each TLS client asked for."""
    server = Server(list(answers))

    def note_name(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        server.names.append(name)

    if tls is not None:
        tls.sni_callback = note_name
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def said(*parts: bytes) -> Answer:
    """Say these bytes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()

    return answer


def http(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; `content_type="text/html"` is a header of it."""
    lines = [f"HTTP/1.1 {status} Reason", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return said("\r\n".join(lines).encode() + b"\r\n\r\n", body)


def moved(location: str, status: int = 302) -> Answer:
    """A redirect."""
    return http(status, location=location)


async def silence(_: asyncio.StreamWriter) -> None:
    """Say nothing for longer than any test has patience."""
    await asyncio.sleep(60)


async def death(writer: asyncio.StreamWriter) -> None:
    """Break the connection, as a server that is killed does."""
    writer.transport.abort()


def endless(head: bytes, part: bytes, pause_s: float = 0) -> Answer:
    """Say `part` again and again, until the client goes away."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


class Internet(httpcore.AsyncNetworkBackend):
    """Names and public addresses of a test: DNS answers in turn, and addresses that lead to loopback ports.

    `asked` holds the names that were resolved, `connected` the addresses that were connected to.
    """

    def __init__(self, names: dict[str, Sequence[Sequence[str]]], ports: dict[tuple[str, int], int]) -> None:
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.names = {name: list(answers) for name, answers in names.items()}
        self._ports = ports
        self._network = httpcore.AnyIOBackend()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise OSError("Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if (host, port) not in self._ports:
            raise httpcore.ConnectError("Connection refused")
        return await self._network.connect_tcp("127.0.0.1", self._ports[host, port], timeout)
