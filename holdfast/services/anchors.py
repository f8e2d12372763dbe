"""Anchors: the signed head of each tenant's audit log, appended to a file from time to time.

The file belongs where whoever can write to the database can't change it: shipped off by a log collector, or on storage
that takes each byte once. What was anchored can't be cut off or rewritten without showing.
"""

import asyncio
import errno
import logging
import os
from pathlib import Path

from holdfast.domain.audit import Head
from holdfast.domain.errors import ConfigurationError
from holdfast.services.audit_heads import Signer
from holdfast.services.looking import Looking
from holdfast.store import audit_chain
from holdfast.store.engine import Database

log = logging.getLogger(__name__)


class Anchors(Looking):
    """Runs in every API process that is given a file. Several of them anchor the same heads, which does no harm."""

    def __init__(self, database: Database, signer: Signer, path: Path, interval_s: float) -> None:
        super().__init__("anchoring of the audit log")
        self._database = database
        self._signer = signer
        self._path = path
        self._interval_s = interval_s
        self._anchored: dict[str, Head] = {}

    def start(self) -> None:
        """Begin, in the running event loop.

        Raises:
            ConfigurationError: the file can't be written.
        """
        try:
            _append(self._path, "")
        except OSError as error:
            raise ConfigurationError(
                f"HOLDFAST_AUDIT_ANCHORS: {self._path} can't be written: {error.strerror}; name a file that can"
            ) from error
        super().start()

    async def anchor(self) -> int:
        """Append the heads that have moved; answers with how many."""
        async with self._database.heads() as connection:
            heads = await audit_chain.heads(connection)
        moved = [head for head in heads if self._anchored.get(head.tenant_id) != head]
        if moved:
            lines = "".join(f"{self._signer.sign(head)}\n" for head in moved)
            await asyncio.to_thread(_append, self._path, lines)
        self._anchored.update({head.tenant_id: head for head in moved})
        return len(moved)

    async def _look(self) -> None:
        try:
            await self.anchor()
        except OSError as error:
            log.error("anchors of the audit log can't be written to %s: %s", self._path, error.strerror)

    async def _rest(self) -> None:
        await asyncio.sleep(self._interval_s)


def _append(path: Path, lines: str) -> None:
    # In one write, so that the lines of several processes do not mix.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # What was torn, by a crash or a full disk, takes no line with it that comes after.
        content = (b"" if not lines or _ends_well(descriptor) else b"\n") + lines.encode()
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_well(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
