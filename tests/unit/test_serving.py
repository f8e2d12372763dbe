"""What a connection to the API inherits from the socket that listens."""

import socket

import pytest
import uvicorn

from api.serving import listen


async def no_app() -> None:
    """Never called."""


@pytest.fixture
def accepted() -> socket.socket:
    """The server's end of a connection."""
    with listen(uvicorn.Config(no_app, host="127.0.0.1", port=0, log_config=None), unread_s=7) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            connection, _ = listening.accept()
    return connection


def test_an_answer_is_sent_at_once_and_does_not_wait_for_what_was_sent_before(accepted: socket.socket) -> None:
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone knows it")
def test_what_is_not_taken_ends_the_connection(accepted: socket.socket) -> None:
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
