"""What a local MCP server writes to standard error goes to our log, a line each, where secrets are taken out.

Handed our own standard error, as is usual, it could write there whatever it was given, past the log.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

log = logging.getLogger(__name__)

#: The longest line that is logged as one, in bytes.
_LONGEST_LINE = 8 * 1024


@contextmanager
def logged(server: str) -> Iterator[TextIO]:
    """A file to be a server's standard error."""
    reading, writing = os.pipe()
    # Ends with the last process that holds the other end, which may be a child of the server's that outlives it.
    threading.Thread(target=_log_lines, args=(server, reading), name=f"stderr of {server}", daemon=True).start()
    with os.fdopen(writing, "w") as file:
        yield file


def _log_lines(server: str, reading: int) -> None:
    with os.fdopen(reading, "rb") as file:
        while line := file.readline(_LONGEST_LINE):
            log.info("%s says: %s", server, line.decode(errors="replace").rstrip())
