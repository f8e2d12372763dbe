"""Which exceptions of a tool leave in doubt whether its effect happened: those of a connection that was lost.

A tool that raises says that it failed. But one whose request went out, and whose answer never came, does not know; and
most tools let the exception of their HTTP client through. Taken for a failure, the model would repeat the call.
"""

#: Raised before anything was sent, by the full names of their classes.
_NEVER_SENT = frozenset(
    {
        "builtins.ConnectionRefusedError",
        "socket.gaierror",
        "ssl.SSLCertVerificationError",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        "httpx.PoolTimeout",
        "httpx.UnsupportedProtocol",
        "httpx.LocalProtocolError",
        "aiohttp.client_exceptions.ClientConnectorError",
        "aiohttp.client_exceptions.ConnectionTimeoutError",
        "requests.exceptions.ConnectTimeout",
        "requests.exceptions.InvalidURL",
        "urllib3.exceptions.NewConnectionError",
        "urllib3.exceptions.ConnectTimeoutError",
    }
)

#: Raised when an answer did not come, or not whole.
_LOST = frozenset(
    {
        "builtins.ConnectionError",
        "builtins.TimeoutError",
        "builtins.EOFError",
        "http.client.IncompleteRead",
        "http.client.BadStatusLine",
        "httpx.ReadTimeout",
        "httpx.WriteTimeout",
        "httpx.NetworkError",
        "httpx.RemoteProtocolError",
        "aiohttp.client_exceptions.ServerConnectionError",
        "aiohttp.client_exceptions.ClientOSError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "requests.exceptions.ReadTimeout",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.ChunkedEncodingError",
        "urllib3.exceptions.ProtocolError",
        "urllib3.exceptions.ReadTimeoutError",
    }
)

#: How far a chain of causes is followed.
_MAX_CAUSES = 20


def is_in_doubt(error: BaseException) -> bool:
    """Whether an exception, or what caused it, is that of a connection lost after it was used."""
    names = {name for cause in _causes(error) for name in _names(cause)}
    return not names & _NEVER_SENT and bool(names & _LOST)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    ahead: list[BaseException | None] = [error]
    while ahead and len(found) < _MAX_CAUSES:
        cause = ahead.pop()
        if cause is not None and not any(cause is one for one in found):
            found.append(cause)
            ahead.append(cause.__cause__ or cause.__context__)
            ahead += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
    return found


def _names(error: BaseException) -> set[str]:
    # By name: the clients that a tool uses need not be installed here, nor be imported by who has none.
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
