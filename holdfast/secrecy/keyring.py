"""Keys that seal what must not be read where it is kept: payloads in Temporal, tenants' provider keys in PostgreSQL.

AES-256-GCM with a random nonce of 96 bits. What is sealed is bound to its key's id and to a context, such as a tenant:
moved elsewhere, it can't be opened. The first key seals, all of them open, which is how one is replaced by another. One
key is good for four billion seals.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY_BYTES = 32
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class CantOpen(Exception):
    """What is sealed can't be opened; the text says why, and quotes nothing of it."""


class UnknownKey(CantOpen):
    """It was sealed with a key that is not in the ring: one may be missing here, or it was never ours."""


class Forged(CantOpen):
    """It was cut or changed, or belongs somewhere else: no key that is added will open it."""


class Keyring:
    """One or more keys by id, the first of which seals."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self.sealing_key_id = next(iter(keys))
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """The keys of `id:base64`, separated by commas or white space.

        Raises:
            ValueError: the text is something else; the error names no key's value.
        """
        keys: dict[str, bytes] = {}
        for key_id, key in _entries(text):
            if key_id in keys:
                raise ValueError(f"has two keys {key_id!r}")
            keys[key_id] = key
        if not keys:
            raise ValueError("holds no key")
        return cls(keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._ciphers)})"

    def seal(self, plain: bytes, *context: str) -> bytes:
        """Seal with the first key; only whoever names the same context can open it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._ciphers[self.sealing_key_id].encrypt(nonce, plain, _bound(self.sealing_key_id, context))

    def open(self, sealed: bytes, key_id: str, *context: str) -> bytes:
        """What was sealed with the key of this id.

        Raises:
            UnknownKey: there is no such key.
            Forged: it was not sealed with this key and in this context, or not all of it is there.
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKey(f"there is no key {key_id[:64]!r}")
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, rest, _bound(key_id, context))
        except (InvalidTag, ValueError):
            # A ValueError: too short to hold a nonce.
            raise Forged(f"it was not sealed with the key {key_id!r}, or not here") from None


def new_key(key_id: str) -> str:
    """A new key, as it is configured."""
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}"


def _entries(text: str) -> Iterator[tuple[str, bytes]]:
    for position, entry in enumerate(text.replace(",", " ").split(), start=1):
        key_id, separator, encoded = entry.partition(":")
        if not separator or not _KEY_ID.fullmatch(key_id):
            # Without quoting it: what stands before a colon may be a key, too.
            raise ValueError(f"number {position} is not id:key with an id of letters, digits, - and _")
        yield key_id, _decoded(key_id, encoded)


def _decoded(key_id: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the key {key_id!r} is not base64") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"the key {key_id!r} has {len(key)} bytes instead of {_KEY_BYTES}")
    return key


def _bound(key_id: str, context: tuple[str, ...]) -> bytes:
    # A list in JSON has one reading only, whatever its parts hold.
    return json.dumps([key_id, *context]).encode()
