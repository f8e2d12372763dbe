"""A pool that is made when it is first asked for: until then, litellm costs a process neither seconds nor memory."""

import asyncio
import importlib
from collections.abc import Callable

from holdfast.llm.pool import ModelPool


class LazyPool:
    """One pool, made once, by `make`."""

    def __init__(self, make: Callable[[], ModelPool]) -> None:
        self._make = make
        self._pool: ModelPool | None = None
        self._making = asyncio.Lock()

    async def get(self) -> ModelPool:
        """The pool. The first call takes seconds, in which other requests are served."""
        async with self._making:
            if self._pool is None:
                await asyncio.to_thread(importlib.import_module, "holdfast.llm.router")
                self._pool = self._make()
        return self._pool
