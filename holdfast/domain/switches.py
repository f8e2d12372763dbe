"""The kill switch: while one is thrown, nothing that it covers begins, and what runs is stopped.

It covers one agent of a tenant, a tenant, or everything. It is thrown and lifted by people, never by an agent: no tool
reaches it.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.errors import InvalidInput

#: Stands in place of a tenant in the switch for everything. It is no tenant's name, and can't become one.
EVERYBODY = "*"

_AGENT = re.compile(r"agent:([a-z0-9][a-z0-9_-]{0,62})")


@dataclass(frozen=True)
class Scope:
    """What a switch covers: `agent` of a tenant; all of the tenant, if that is empty; all there is, of `EVERYBODY`."""

    tenant_id: str
    agent: str = ""

    def __str__(self) -> str:
        if self.tenant_id == EVERYBODY:
            return "all"
        return f"agent:{self.agent}" if self.agent else "tenant"

    @classmethod
    def read(cls, tenant_id: str, text: str) -> "Scope":
        """A scope of a tenant as it is written: `tenant`, or `agent:NAME`.

        Raises:
            InvalidInput: it is neither.
        """
        if text == "tenant":
            return cls(tenant_id)
        named = _AGENT.fullmatch(text)
        if named is None:
            raise InvalidInput("scope", f"{text!r} is not a scope: say tenant, or agent:NAME.")
        return cls(tenant_id, named[1])


@dataclass(frozen=True)
class Switch:
    """A switch that is thrown: for what, why, by whom and since when."""

    scope: Scope
    reason: str
    thrown_by: str
    thrown_at: datetime

    def __str__(self) -> str:
        agent = f"The agent {self.scope.agent!r}" if self.scope.agent else "Everything here"
        return f"{agent} is stopped: {self.reason}"
