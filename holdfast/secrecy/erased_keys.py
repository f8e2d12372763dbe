"""What is left of an idempotency key when its message is erased: enough to know the key again, and nothing to read.

A message that is delivered again must find the first one, whatever was erased of that meanwhile. So the key is kept as
a hash under a secret, which is not in the database: nobody who reads that can try keys. The secret is made of the
pepper of the API keys, for each tenant its own.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

#: What begins such a hash.
ERASED_KEY = "erased:"


@dataclass(frozen=True)
class ErasedKeys:
    """Makes the hashes. `peppers`: the current one, and those before it."""

    peppers: tuple[bytes, ...]

    @classmethod
    def of(cls, pepper: str, previous: Sequence[str] = ()) -> "ErasedKeys":
        """The hashes under these peppers."""
        return cls((pepper.encode(), *(one.encode() for one in previous)))

    def __repr__(self) -> str:
        return "ErasedKeys()"

    def secret(self, tenant_id: str) -> str:
        """What a key is hashed behind: see `hashed`."""
        return _secret(self.peppers[0], tenant_id)

    def hashes(self, tenant_id: str, key: str) -> list[str]:
        """What may be left of a key."""
        return [hashed(_secret(pepper, tenant_id), key) for pepper in self.peppers]


def hashed(secret: str, key: str) -> str:
    """What is left of a key. PostgreSQL makes the same: see `holdfast.store.erasure`."""
    return ERASED_KEY + hashlib.sha256(f"{secret}{key}".encode()).hexdigest()


def _secret(pepper: bytes, tenant_id: str) -> str:
    return hmac.digest(pepper, f"idempotency keys of {tenant_id}".encode(), hashlib.sha256).hex()
