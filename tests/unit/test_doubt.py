"""A lost connection is not a failure: the clients that tools use say so each in their own words."""

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator

import aiohttp
import httpx
import pytest
import requests

from holdfast.tools.doubt import is_in_doubt


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """A server that reads a request, as if to do what it asks, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(1000)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def refuses() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


async def _with_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await session.post(url)


CLIENTS: dict[str, Callable[[str], object]] = {
    "httpx": lambda url: httpx.post(url),
    "requests": lambda url: requests.post(url, timeout=10),
    "urllib": lambda url: urllib.request.urlopen(url, data=b"x"),
    "aiohttp": lambda url: asyncio.run(_with_aiohttp(url)),
}
each_client = pytest.mark.parametrize("client", CLIENTS)


def raised_by(client: str, url: str) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011  each client has its own
        CLIENTS[client](url)
    return raised.value


@each_client
def test_a_lost_answer_leaves_it_in_doubt(client: str, hangs_up: str) -> None:
    assert is_in_doubt(raised_by(client, hangs_up))


@each_client
def test_what_was_never_sent_has_failed(client: str, refuses: str) -> None:
    assert not is_in_doubt(raised_by(client, refuses))


@pytest.mark.parametrize("error", [TimeoutError(), EOFError(), ConnectionAbortedError(), BrokenPipeError()])
def test_pythons_own_say_it_too(error: Exception) -> None:
    assert is_in_doubt(error)


@pytest.mark.parametrize("error", [ValueError("no such order"), RuntimeError("TimeoutError"), OSError("disk full")])
def test_a_tool_that_says_that_it_failed_is_believed(error: Exception) -> None:
    assert not is_in_doubt(error)


def test_an_error_is_in_doubt_for_what_caused_it() -> None:
    class PaymentError(Exception):
        pass

    def pay() -> None:
        try:
            raise ConnectionResetError("peer")
        except ConnectionResetError as error:
            raise PaymentError("the payment could not be made") from error

    with pytest.raises(PaymentError) as raised:
        pay()
    assert is_in_doubt(raised.value)


def test_a_group_is_in_doubt_for_any_of_its_errors() -> None:
    assert is_in_doubt(ExceptionGroup("both", [ValueError("a"), ConnectionResetError("b")]))


def test_causes_in_a_circle_are_followed_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_in_doubt(first)
