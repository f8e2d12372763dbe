"""API keys: made, shown once, stored as an HMAC, looked up by it; they expire, and are revoked.

A key that was found is remembered for `REMEMBERED_S`, with its roles and its principal. So long, at most, do other
processes go on taking a key that was revoked, and so long do they know nothing of a new link.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.errors import CredentialRefused, InvalidInput, NotFound
from holdfast.domain.ids import new_key_id
from holdfast.domain.permissions import Caller
from holdfast.domain.principals import ApiKey, IdentityKind, check_name, check_roles, is_tenant
from holdfast.services.key_uses import KeyUses, Use
from holdfast.services.remembered import Remembered
from holdfast.store import audit, identities, keys
from holdfast.store.engine import Database
from holdfast.store.keys import FoundKey

log = logging.getLogger(__name__)

#: How every key begins.
PREFIX = "hf_"

#: How long a key that was found stays known without asking the database, in seconds.
REMEMBERED_S = 5.0

#: How many keys are remembered at once.
_REMEMBERED_KEYS = 10_000

#: No key is longer: what is, is not looked up.
_MAX_KEY_CHARACTERS = 128

#: The longest that a key can last, if it is to expire at all.
_LONGEST = timedelta(days=3660)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `secret` is the key itself, which nobody can show again."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.key_id!r})"


class Keys:
    """Makes, checks and revokes API keys. `previous_peppers`: under which keys may have been stored."""

    def __init__(self, database: Database, pepper: str, previous_peppers: Sequence[str] = ()) -> None:
        self._database = database
        self._peppers = [pepper.encode(), *(previous.encode() for previous in previous_peppers)]
        self._uses = KeyUses(database)
        self._remembered: Remembered[bytes, Caller] = Remembered(REMEMBERED_S, _REMEMBERED_KEYS)

    async def create(
        self,
        tenant_id: str,
        person: str,
        roles: Collection[str] = (),
        *,
        expires_in: timedelta | None = None,
        created_by: str = "the command line",
    ) -> NewKey:
        """Make a key, and its tenant, if it is new. Its secret can't be shown again.

        Args:
            tenant_id: whose it is.
            person: who acts with it: the principal, unless the key is linked to another.
            roles: those that give permissions, and those that policies ask for.
            expires_in: how long it opens anything; None: until it is revoked.
            created_by: who makes it.

        Raises:
            InvalidInput: a name of the tenant, the person or a role is none, or the time makes no sense.
        """
        secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
        if not is_tenant(tenant_id):
            raise InvalidInput(
                "tenant", f"{tenant_id!r} is not a tenant's name: use lower-case letters, digits, - and _."
            )
        check_name("person", person)
        check_roles(roles)
        if expires_in is not None and not timedelta(0) < expires_in <= _LONGEST:
            raise InvalidInput("expires_in", f"A key can last for up to {_LONGEST.days} days, or for ever.")
        async with self._database.tenant(tenant_id) as connection:
            key = await self._add(connection, tenant_id, person, secret, roles, expires_in, created_by)
        return NewKey(key, secret)

    async def store(self, tenant_id: str, person: str, secret: str, roles: Collection[str]) -> None:
        """Make a key known that was made elsewhere; known already, it is given these roles too."""
        async with self._database.key_lookup(self._hash(secret)) as connection:
            found = await keys.find(connection, self._hash(secret))
        async with self._database.tenant(tenant_id) as connection:
            if found is None:
                await self._add(connection, tenant_id, person, secret, roles, None, "holdfast dev")
            elif missing := set(roles) - set(found.key.roles):
                all_roles = sorted({*found.key.roles, *missing})
                await keys.set_roles(connection, tenant_id, found.key.key_id, all_roles)
                entry = _entry("changed", found.key.key_id, "holdfast dev", all_roles)
                await audit.append(connection, tenant_id, entry)

    async def page(self, tenant_id: str, *, after: str | None, limit: int) -> list[ApiKey]:
        """A page of keys, newest first."""
        async with self._database.tenant(tenant_id) as connection:
            return await keys.page(connection, tenant_id, after=after, limit=limit)

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """Revoke a key, for ever; revoked before, it stays so. Answers with it.

        Raises:
            NotFound: the tenant has no such key.
        """
        tenant_id = caller.tenant_id
        async with self._database.tenant(tenant_id) as connection:
            if await keys.revoke(connection, tenant_id, key_id):
                entry = audit.Entry(kind="key", outcome="revoked", subject_id=key_id, person=caller.person)
                await audit.append(connection, tenant_id, entry)
            key = await keys.get(connection, tenant_id, key_id)
        if key is None:
            raise NotFound("key", key_id)
        self._remembered.forget(lambda remembered: remembered.key_id == key_id)
        return key

    async def caller(self, secret: str) -> Caller:
        """Who a key belongs to.

        Raises:
            CredentialRefused: the key is not known, has expired or was revoked.
        """
        if len(secret) > _MAX_KEY_CHARACTERS:
            raise CredentialRefused("The API key is not known.")
        key_hash = self._hash(secret)
        remembered = self._remembered.get(key_hash)
        if remembered is not None:
            return remembered
        mark = self._remembered.mark
        found, is_of_old_pepper = await self._find(secret)
        caller = await self._caller(found.key)
        self._remembered.put(key_hash, caller, mark, found.expires_in_s)
        if found.is_use_news or is_of_old_pepper:
            self._uses.note(Use(caller.tenant_id, found.key.key_id, key_hash if is_of_old_pepper else None))
        return caller

    def forget(self) -> None:
        """Ask the database of each key anew."""
        self._remembered.forget(lambda _: True)

    async def close(self) -> None:
        """Let what is still to be written be written."""
        await self._uses.close()

    async def _find(self, secret: str) -> tuple[FoundKey, bool]:
        for pepper in self._peppers:
            key_hash = _hashed(pepper, secret)
            async with self._database.key_lookup(key_hash) as connection:
                found = await keys.find(connection, key_hash)
            if found is not None and hmac.compare_digest(found.key_hash, key_hash):
                _check_usable(found)
                return found, pepper is not self._peppers[0]
        raise CredentialRefused("The API key is not known.")

    async def _caller(self, key: ApiKey) -> Caller:
        async with self._database.tenant(key.tenant_id) as connection:
            person, names = await identities.names_of(
                connection, key.tenant_id, IdentityKind.KEY, key.key_id, unlinked=key.person
            )
        return Caller(key.tenant_id, person, frozenset(key.roles), names, key.key_id)

    async def _add(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        person: str,
        secret: str,
        roles: Collection[str],
        expires_in: timedelta | None,
        created_by: str,
    ) -> ApiKey:
        key_id = new_key_id()
        await keys.add_tenant(connection, tenant_id)
        await keys.add(
            connection,
            tenant_id,
            key_id,
            self._hash(secret),
            person=person,
            roles=sorted(set(roles)),
            created_by=created_by,
            expires_in=expires_in,
        )
        await audit.append(connection, tenant_id, _entry("created", key_id, created_by, sorted(set(roles))))
        key = await keys.get(connection, tenant_id, key_id)
        assert key is not None
        return key

    def _hash(self, secret: str) -> bytes:
        return _hashed(self._peppers[0], secret)


def _hashed(pepper: bytes, secret: str) -> bytes:
    return hmac.digest(pepper, secret.encode(errors="replace"), hashlib.sha256)


def _entry(outcome: str, key_id: str, person: str, roles: Sequence[str]) -> audit.Entry:
    # Whom the key is for stands with it, where a name can be erased.
    return audit.Entry(kind="key", outcome=outcome, subject_id=key_id, person=person, detail=", ".join(roles))


def _check_usable(found: FoundKey) -> None:
    # Only who holds the key learns that it was one.
    if found.key.revoked_at is not None:
        log.warning("key %s of tenant %s is still used, though it was revoked", found.key.key_id, found.key.tenant_id)
        raise CredentialRefused("The API key was revoked.")
    if found.expires_in_s is not None and found.expires_in_s <= 0:
        raise CredentialRefused("The API key has expired.")
