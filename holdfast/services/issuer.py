"""The public keys of the identity provider: fetched, kept, and fetched again when a token names one that is not known.

Anybody can make up tokens that name unknown keys. So the provider is asked at most once in `ask_again_s`, by one
request at a time, while the others go on with the keys that are known. When the provider does not answer, those keys
keep working; what a token says of its own key (`jwk`, `jku`, `x5u`) is never looked at.
"""

import asyncio
import json
import logging
import time
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from holdfast.domain.errors import Unavailable

log = logging.getLogger(__name__)

#: Seconds after which the keys are fetched anew though all are known, so that one which the provider withdrew goes.
FRESH_S = 600.0

_DISCOVERY = "/.well-known/openid-configuration"
_TIMEOUT_S = 5.0
_MAX_DOCUMENT_BYTES = 512 * 1024

#: Only these: a symmetric key in a public document would let anybody sign.
_ASYMMETRIC = ("RSA", "EC", "OKP")


class IssuerKeys:
    """The keys of one issuer. `jwks_url` None: the issuer's discovery document says where they are."""

    def __init__(
        self, issuer: str, jwks_url: str | None, *, ask_again_s: float = 10.0, fresh_s: float = FRESH_S
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._ask_again_s = ask_again_s
        self._fresh_s = fresh_s
        self._keys: dict[str, Key] = {}
        self._asked_at = self._fetched_at = float("-inf")
        self._answered = False
        self._asking = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    async def get(self, kid: str) -> Key | None:
        """The key with this id; None: the provider has none.

        Raises:
            Unavailable: it is not known here, and the provider does not answer.
        """
        known = self._keys.get(kid)
        if known is not None:
            self._keep_fresh()
            return known
        async with self._asking:
            # Whoever had the lock before may have fetched it.
            if kid not in self._keys and time.monotonic() - self._asked_at >= self._ask_again_s:
                await self._ask()
        if kid not in self._keys and not self._answered:
            raise Unavailable("The identity provider can't be reached, so the token can't be checked.")
        return self._keys.get(kid)

    async def close(self) -> None:
        """Stop fetching."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.wait([self._refresh])

    def _keep_fresh(self) -> None:
        now = time.monotonic()
        is_old = now - self._fetched_at >= self._fresh_s and now - self._asked_at >= self._ask_again_s
        if is_old and not self._asking.locked():
            self._refresh = asyncio.create_task(self._ask_alone(), name="fetching the issuer's keys")

    async def _ask_alone(self) -> None:
        async with self._asking:
            await self._ask()

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        try:
            self._keys = await self._fetch()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._answered = False
            log.warning("the keys of %s could not be fetched: %s: %s", self._issuer, type(error).__name__, error)
        else:
            self._answered = True
            self._fetched_at = time.monotonic()

    async def _fetch(self) -> dict[str, Key]:
        # A redirect is not followed: the keys come from where they were said to be.
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            url = self._jwks_url
            if url is None:
                described = await _read(client, self._issuer.rstrip("/") + _DISCOVERY)
                if described.get("issuer") != self._issuer:
                    raise ValueError(f"the discovery document is that of {described.get('issuer')!r}")
                url = str(described.get("jwks_uri"))
            return _usable(await _read(client, url))


async def _read(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answered with status {response.status_code}")
        body = b""
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _MAX_DOCUMENT_BYTES:
                raise ValueError(f"{url} answered with more than {_MAX_DOCUMENT_BYTES} bytes")
    try:
        found = json.loads(body)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{url} answered with what is no JSON object")
    return found


def _usable(document: dict[str, Any]) -> dict[str, Key]:
    """The keys for signatures, by their ids. What can't be used is left out: the others still can."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the document has no list of keys")
    found: dict[str, Key] = {}
    for one in listed:
        kid = one.get("kid") if isinstance(one, dict) else None
        if not isinstance(kid, str) or one.get("kty") not in _ASYMMETRIC or one.get("use", "sig") != "sig":
            continue
        try:
            found[kid] = JWKRegistry.import_key(one)
        except (JoseError, ValueError, TypeError, LookupError) as error:
            log.warning("a key of the identity provider can't be used: %s", type(error).__name__)
    if not found:
        raise ValueError("the document has no key that can be used")
    return found
