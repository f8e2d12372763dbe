"""Notes when keys were used: at most once a minute for each, one after the other, and never while a request waits."""

import asyncio
import logging
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import Unavailable
from holdfast.store import keys
from holdfast.store.engine import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Use:
    """A key that was used; `key_hash`: what it is to be found by from now on, None: as before."""

    tenant_id: str
    key_id: str
    key_hash: bytes | None = None


class KeyUses:
    """Takes note of uses, by one task that holds one connection at a time, however many keys there are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, Use] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, use: Use) -> None:
        """Write it soon."""
        self._waiting[use.key_id] = use
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="noting uses of keys")

    async def close(self) -> None:
        """Wait until what is known is written."""
        if self._task is not None:
            await self._task

    async def _write(self) -> None:
        while self._waiting:
            _, use = self._waiting.popitem()
            try:
                async with self._database.tenant(use.tenant_id) as connection:
                    await keys.note_use(connection, use.tenant_id, use.key_id)
                    if use.key_hash is not None:
                        await keys.set_hash(connection, use.tenant_id, use.key_id, use.key_hash)
            except Unavailable as error:
                # What is used again will be noted then.
                log.warning("uses of %d keys were not noted: %s", len(self._waiting) + 1, error)
                self._waiting.clear()
            except SQLAlchemyError as error:
                log.warning("the use of key %s was not noted: %s", use.key_id, type(error).__name__)
