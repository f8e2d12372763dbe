"""API keys: made, shown once, stored as an HMAC, looked up by it."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection

from holdfast.domain.errors import InvalidInput, Unauthenticated
from holdfast.domain.ids import new_key_id
from holdfast.domain.permissions import Caller
from holdfast.store import keys
from holdfast.store.engine import Database

#: How long a key that was found stays known without asking the database, in seconds.
_REMEMBERED_S = 5.0

_ROLE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

#: How many keys are remembered at once.
_REMEMBERED_KEYS = 10_000


class Keys:
    """Makes and checks API keys."""

    def __init__(self, database: Database, pepper: str) -> None:
        self._database = database
        self._pepper = pepper.encode()
        self._remembered: dict[bytes, tuple[float, Caller]] = {}

    async def create(self, tenant_id: str, person: str, roles: Collection[str] = ()) -> str:
        """Make a key (and its tenant, if it is new) and answer with it: it can't be shown again.

        Args:
            tenant_id: whose it is.
            person: who acts with it.
            roles: what the person may decide: a confirmation whose policy names approvers needs one of their roles.

        Raises:
            InvalidInput: the tenant's name is not lower-case letters, digits, `-` and `_`, or a role's is not.
        """
        key = f"hf_{secrets.token_urlsafe(32)}"
        await self.store(tenant_id, person, key, roles)
        return key

    async def store(self, tenant_id: str, person: str, key: str, roles: Collection[str] = ()) -> None:
        """Make a key known that was made elsewhere; known already, it stays."""
        _check_tenant(tenant_id)
        for role in roles:
            if not _ROLE.fullmatch(role):
                raise InvalidInput("role", f"{role!r} is not a role's name: use lower-case letters, digits, - and _.")
        async with self._database.key_lookup(self._hash(key)) as connection:
            if await keys.find(connection, self._hash(key)) is not None:
                return
        async with self._database.tenant(tenant_id) as connection:
            await keys.add_tenant(connection, tenant_id)
            await keys.add(connection, tenant_id, new_key_id(), self._hash(key), person, sorted(set(roles)))

    async def caller(self, key: str) -> Caller:
        """Who a key belongs to.

        Raises:
            Unauthenticated: the key is not known.
        """
        key_hash = self._hash(key)
        now = time.monotonic()
        remembered = self._remembered.get(key_hash)
        if remembered is not None and now - remembered[0] < _REMEMBERED_S:
            return remembered[1]
        caller = await self._find(key_hash)
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        self._remembered[key_hash] = (now, caller)
        return caller

    async def _find(self, key_hash: bytes) -> Caller:
        async with self._database.key_lookup(key_hash) as connection:
            row = await keys.find(connection, key_hash)
        if row is None or not hmac.compare_digest(row.key_hash, key_hash):
            raise Unauthenticated("The API key is not known.")
        return Caller(tenant_id=row.tenant_id, person=row.person, roles=frozenset(row.roles), key_id=row.key_id)

    def _hash(self, key: str) -> bytes:
        return hmac.digest(self._pepper, key.encode(errors="replace"), hashlib.sha256)


def _check_tenant(tenant_id: str) -> None:
    # It stands in workflow ids, between colons.
    if (
        not tenant_id
        or len(tenant_id) > 63
        or not all(c.isascii() and (c.islower() or c.isdigit() or c in "-_") for c in tenant_id)
    ):
        raise InvalidInput("tenant", f"{tenant_id!r} is not a tenant's name: use lower-case letters, digits, - and _.")
