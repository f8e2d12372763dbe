"""What runs beside the requests and activities of a process: a look at something, made again and again.

A look that fails is made again after a rest, whatever failed: nobody else would begin it anew.
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import HoldfastError

log = logging.getLogger(__name__)


class Looking(ABC):
    """Looks and rests in turn, in a task of its own. `name`: what the log calls it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Stop; what is left is done by another process, or by the next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _look(self) -> object: ...

    @abstractmethod
    async def _rest(self) -> None: ...

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except (HoldfastError, SQLAlchemyError) as error:
                log.warning("the %s can't work now, trying again: %s", self._name, type(error).__name__)
            except Exception:
                # Whatever nobody foresaw in one look must not end all looks to come.
                log.exception("the %s met an error that nobody foresaw, trying again", self._name)
            await self._rest()
