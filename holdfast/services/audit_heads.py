"""Signed heads of the audit log: what shows later that its end was cut off, or that all of it was written anew.

A head is one line of canonical JSON, signed with Ed25519. Kept where whoever can write to the database can't reach it,
it binds every entry up to its number. Who verifies it needs the public key only.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from holdfast.domain.audit import Head
from holdfast.domain.errors import ConfigurationError, HoldfastError

#: What a signed head calls itself, which is signed too: no signature of anything else can be taken for one.
OBJECT = "audit.head"

_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class NotSigned(HoldfastError):
    """A line is no head that was signed with a key that is known."""


@dataclass(frozen=True)
class Signer:
    """Signs heads."""

    key: Ed25519PrivateKey

    @classmethod
    def of(cls, pem: str, variable: str) -> "Signer":
        """The signer with a key in PEM, which `variable` holds.

        Raises:
            ConfigurationError: it is no such key.
        """
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(
                f"{variable}: is not an Ed25519 private key in PEM; make one with `openssl genpkey -algorithm ed25519`"
            )
        return cls(key)

    def sign(self, head: Head) -> str:
        """A head as a signed line, without its end."""
        said: dict[str, Any] = {
            "object": OBJECT,
            "tenant_id": head.tenant_id,
            "seq": head.seq,
            "hash": head.hash,
            "signed_at": datetime.now(UTC).isoformat(),
            "key_id": _key_id(self.key.public_key()),
        }
        signature = base64.b64encode(self.key.sign(rfc8785.dumps(said))).decode()
        return rfc8785.dumps({**said, "signature": signature}).decode()


@dataclass(frozen=True)
class Verifier:
    """Reads signed heads, with the public keys that may have signed them: the current one, and those before it."""

    keys: dict[str, Ed25519PublicKey]

    @classmethod
    def of(cls, pem: str, variable: str) -> "Verifier":
        """The verifier with the keys of a PEM file, which `variable` names.

        Raises:
            ConfigurationError: there is none in it.
        """
        keys = [_public_key(one) for one in _PUBLIC_KEY.findall(pem)]
        known = {_key_id(key): key for key in keys if key is not None}
        if not known:
            raise ConfigurationError(
                f"{variable}: holds no Ed25519 public key in PEM; `openssl pkey -pubout` makes it of the private one"
            )
        return cls(known)

    def read(self, line: str) -> Head | None:
        """The head on a line; None: the line is something else, such as an exported entry.

        Raises:
            NotSigned: it is a head, and not signed with any of the keys.
        """
        said = _object(line) if line.strip() else {}
        if said.get("object") != OBJECT:
            return None
        key = self.keys.get(str(said.get("key_id")))
        if key is None:
            raise NotSigned(f"it is signed with another key: {said.get('key_id')!r}")
        try:
            signature = base64.b64decode(str(said.pop("signature", "")), validate=True)
            key.verify(signature, rfc8785.dumps(said))
            return Head(str(said["tenant_id"]), int(said["seq"]), str(said["hash"]))
        except (InvalidSignature, binascii.Error, rfc8785.CanonicalizationError, KeyError, ValueError, TypeError):
            raise NotSigned("its signature does not hold") from None


def _object(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        raise NotSigned("it is not JSON") from None
    return said if isinstance(said, dict) else {}


def _public_key(pem: str) -> Ed25519PublicKey | None:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
