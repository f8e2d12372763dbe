"""Applying agents: each change makes a new version, the same again none."""

from holdfast.domain.agents import AgentSpec
from holdfast.domain.audit import canonical
from holdfast.domain.errors import Conflict, InvalidInput
from holdfast.domain.storable import is_storable
from holdfast.store import agents, audit
from holdfast.store.engine import Database


class Agents:
    """The agents of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, tenant_id: str, spec: AgentSpec, person: str | None = None) -> int:
        """Make `spec` the newest version of its agent; answers with the version's number.

        Args:
            tenant_id: whose agent it is.
            spec: the agent.
            person: who applies it; None: whoever set this deployment up.

        Raises:
            InvalidInput: a text of it can't be stored.
            Conflict: somebody else changed the agent at the same moment.
        """
        for name, value in spec.model_dump(mode="json").items():
            if not is_storable(value):
                raise InvalidInput(name, f"The {name} can't be stored: it has a NUL or a lone surrogate.")
        async with self._database.tenant(tenant_id) as connection:
            version = await agents.latest_version(connection, tenant_id, spec.name)
            if version is not None and await agents.load(connection, tenant_id, spec.name, version) == spec:
                return version
            if not await agents.add_version(connection, tenant_id, spec, (version or 0) + 1):
                raise Conflict(f"The agent {spec.name!r} was changed by somebody else; apply it again.")
            entry = audit.Entry(
                kind="configuration",
                outcome="applied",
                subject_id=f"{spec.name}:{(version or 0) + 1}",
                person=person,
                content={"spec": canonical(spec.model_dump(mode="json"))},
            )
            await audit.append(connection, tenant_id, entry)
            return (version or 0) + 1

    async def newest(self, tenant_id: str) -> list[tuple[AgentSpec, int]]:
        """Every agent with its newest version, by name."""
        async with self._database.tenant(tenant_id) as connection:
            return await agents.newest(connection, tenant_id)
