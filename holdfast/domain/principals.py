"""Principals: who acts, whatever they come with. One person may hold several keys, and have a token and a chat account.

Each of those is an identity. By itself a key acts as the person that it was made for, and any other identity as a
principal of its own (`oidc:4711`); linked, it acts as the principal that it is linked to. What it did before under its
own name stays the same person's, too: see `Caller.names`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from holdfast.domain.audit import PSEUDONYM
from holdfast.domain.errors import InvalidInput

#: The longest name of a principal, or of a subject, in characters.
MAX_NAME_CHARACTERS = 255

_ROLE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TENANT = re.compile(r"[a-z0-9_-]{1,63}")


class IdentityKind(StrEnum):
    """What somebody comes with."""

    KEY = "key"  #: an API key, by its id
    OIDC = "oidc"  #: a token, by the claim that names the principal
    SLACK = "slack"  #: an account of a Slack workspace

    def principal(self, subject: str) -> str:
        """The principal that an identity of this kind is as long as it is linked to none (a key has its person)."""
        return f"{self}:{subject}"


@dataclass(frozen=True)
class Identity:
    """An identity that is linked to a principal. `roles`: of an account of Slack, which brings none by itself."""

    kind: IdentityKind
    subject: str
    principal: str
    created_at: datetime
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored; its secret is not."""

    tenant_id: str
    key_id: str
    person: str
    roles: tuple[str, ...]
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def status(self, now: datetime) -> str:
        """Whether it opens anything: active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def is_tenant(name: str) -> bool:
    """Whether this could be a tenant's name: it stands in workflow ids, between colons."""
    return _TENANT.fullmatch(name) is not None


def is_role(name: str) -> bool:
    """Whether this could be a role's name."""
    return _ROLE.fullmatch(name) is not None


def check_roles(roles: Collection[str]) -> None:
    """Raises:
    InvalidInput: one is no role's name.
    """
    for role in roles:
        if not is_role(role):
            raise InvalidInput("roles", f"{role!r} is not a role's name: use lower-case letters, digits, - and _.")


def check_name(field: str, name: str) -> None:
    """Raises:
    InvalidInput: the name of a person or principal is empty, too long, can't be shown, or is one that we give.
    """
    if not name.strip() or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise InvalidInput(field, f"A {field} has 1 to {MAX_NAME_CHARACTERS} characters that can be printed.")
    if name.partition(":")[0] in {*IdentityKind, PSEUDONYM.rstrip(":")}:
        # Else a key could pass for somebody who comes with a token, or for somebody who was erased.
        raise InvalidInput(field, f"The name of a {field} can't begin with `{name.partition(':')[0]}:`.")
