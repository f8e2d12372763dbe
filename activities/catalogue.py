"""The agents that runs were accepted with. A version never changes, so what was read once is kept."""

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.agents import AgentSpec
from holdfast.store import agents

#: How many versions are kept in memory.
_KEPT = 1_000


class AgentCatalogue:
    """Reads agents by version."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], AgentSpec] = {}

    async def get(self, connection: AsyncConnection, tenant_id: str, name: str, version: int) -> AgentSpec:
        """A version that is known to exist.

        Read in the caller's transaction: one that waited for a second connection could wait for itself.
        """
        key = (tenant_id, name, version)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = await agents.load(connection, tenant_id, name, version)
        return self._known[key]
