"""Loopback ports: whether one is free, and one that is."""

import socket

from holdfast.domain.errors import ConfigurationError


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, name: str, option: str) -> None:
    """Check that a port can be listened on.

    Raises:
        ConfigurationError: it is taken; the text says whose it was to be, and the option that changes it.
    """
    with socket.socket() as probe:
        # A port in TIME_WAIT after a restart is free for a server; only a listener is in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} ({name}) is taken; stop what listens there, or choose another with {option}"
            ) from error


def is_listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
