"""Tenants' own keys of model providers: set, never shown again, and handed to the pool with each of their calls.

A key is sealed with the payload keys, and bound to its tenant and its provider: a row that somebody moves to another
tenant opens for nobody. A tenant whose key can't be opened makes no calls with the deployment's instead: whose bill it
is would change in silence.
"""

import re
import time
from collections.abc import Mapping

from holdfast.domain.errors import InvalidInput, ModelsUnavailable, NotFound, Unavailable
from holdfast.domain.permissions import Caller
from holdfast.secrecy.keyring import CantOpen, Keyring
from holdfast.secrecy.redaction import learn_recent
from holdfast.store import audit, provider_keys
from holdfast.store.engine import Database
from holdfast.store.provider_keys import SealedKey

_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

#: What can stand in a header.
_KEY = re.compile(r"[\x21-\x7e]{8,4096}")

#: How many characters of a key are shown, and from how long a key on: of a short one they would say too much.
_SHOWN = 4
_LONG_ENOUGH_TO_SHOW = 20

#: How long a tenant's keys are known without asking the database, in seconds, and of how many tenants at once.
_REMEMBERED_S = 5.0
_REMEMBERED_TENANTS = 10_000

_PURPOSE = "provider key"


class ProviderKeys:
    """Keeps and hands out the keys of tenants. `keyring` None: none can be kept, and none opened."""

    def __init__(self, database: Database, keyring: Keyring | None) -> None:
        self._database = database
        self._keyring = keyring
        self._remembered: dict[str, tuple[float, Mapping[str, str]]] = {}

    async def put(self, caller: Caller, provider: str, key: str) -> SealedKey:
        """Keep a tenant's key of a provider, in place of the one before. Other processes know it within seconds.

        Raises:
            InvalidInput: the provider's name, or the key, is none.
            NotFound: there is no such tenant.
            Unavailable: there is no key to seal it with.
        """
        _check(provider, key)
        if self._keyring is None:
            raise Unavailable("HOLDFAST_PAYLOAD_KEYS is not set here, so a provider key can't be kept.")
        tenant_id = caller.tenant_id
        hint = key[-_SHOWN:] if len(key) >= _LONG_ENOUGH_TO_SHOW else ""
        async with self._database.tenant(tenant_id) as connection:
            if not await provider_keys.tenant_exists(connection, tenant_id):
                raise NotFound("tenant", tenant_id)
            await provider_keys.put(
                connection,
                tenant_id,
                provider=provider,
                ciphertext=self._keyring.seal(key.encode(), _PURPOSE, tenant_id, provider),
                key_id=self._keyring.sealing_key_id,
                hint=hint,
                created_by=caller.person,
            )
            await audit.append(connection, tenant_id, _entry("set", provider, caller.person))
        self._remembered.pop(tenant_id, None)
        return await self.get(tenant_id, provider)

    async def remove(self, caller: Caller, provider: str) -> None:
        """Forget a tenant's key; from then on its calls are made with the deployment's.

        Raises:
            NotFound: there is none.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            if not await provider_keys.remove(connection, caller.tenant_id, provider):
                raise NotFound("key of the provider", provider)
            await audit.append(connection, caller.tenant_id, _entry("removed", provider, caller.person))
        self._remembered.pop(caller.tenant_id, None)

    async def get(self, tenant_id: str, provider: str) -> SealedKey:
        """What is known of a key without opening it.

        Raises:
            NotFound: there is none.
        """
        for kept in await self.all_of(tenant_id):
            if kept.provider == provider:
                return kept
        raise NotFound("key of the provider", provider)

    async def all_of(self, tenant_id: str) -> list[SealedKey]:
        """What is known of a tenant's keys without opening them."""
        async with self._database.tenant(tenant_id) as connection:
            return await provider_keys.all_of(connection, tenant_id)

    async def opened(self, tenant_id: str) -> Mapping[str, str]:
        """A tenant's keys by provider, for the calls that are made for it, and for nothing else.

        Raises:
            ModelsUnavailable: one can't be opened here.
        """
        now = time.monotonic()
        remembered = self._remembered.get(tenant_id)
        if remembered is not None and now - remembered[0] < _REMEMBERED_S:
            return remembered[1]
        keys = {kept.provider: self._opened(tenant_id, kept) for kept in await self.all_of(tenant_id)}
        learn_recent(*keys.values())
        if len(self._remembered) >= _REMEMBERED_TENANTS:
            self._remembered.clear()
        self._remembered[tenant_id] = (now, keys)
        return keys

    def _opened(self, tenant_id: str, kept: SealedKey) -> str:
        if self._keyring is None:
            raise ModelsUnavailable(
                f"The tenant has its own key of {kept.provider}, and HOLDFAST_PAYLOAD_KEYS, which opens it, is not set."
            )
        try:
            return self._keyring.open(kept.ciphertext, kept.key_id, _PURPOSE, tenant_id, kept.provider).decode()
        except CantOpen as error:
            raise ModelsUnavailable(
                f"The tenant's own key of {kept.provider} can't be opened with HOLDFAST_PAYLOAD_KEYS: {error}. "
                "Add the key that it was kept with, or set it again."
            ) from None


def _check(provider: str, key: str) -> None:
    if not _PROVIDER.fullmatch(provider):
        raise InvalidInput("provider", "A provider's name is lower-case letters, digits, - and _, like openai.")
    if not _KEY.fullmatch(key):
        raise InvalidInput("key", "A key has 8 to 4096 characters, all of them visible ones of ASCII.")


def _entry(outcome: str, provider: str, person: str) -> audit.Entry:
    return audit.Entry(kind="provider_key", outcome=outcome, subject_id=provider, person=person)
