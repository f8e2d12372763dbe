"""Bearer tokens of an identity provider (OIDC): checked against its keys, and mapped to tenant, principal and roles.

Issuer, audience and algorithms are pinned by settings; the token chooses only among the issuer's public keys, by `kid`.
Whatever is wrong with one, its sender is told the same; the log says what it was, and never the token.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from holdfast.domain.errors import CredentialRefused
from holdfast.domain.permissions import Caller
from holdfast.domain.principals import MAX_NAME_CHARACTERS, IdentityKind, is_role, is_tenant
from holdfast.services.issuer import IssuerKeys
from holdfast.services.keys import REMEMBERED_S
from holdfast.services.remembered import Remembered
from holdfast.store import identities, tenants
from holdfast.store.engine import Database

log = logging.getLogger(__name__)

#: What tokens may be signed with: none of these can be checked with a key that also signs.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})

#: Longer ones are refused unread.
MAX_TOKEN_CHARACTERS = 16 * 1024

#: How far the provider's clock may be off, in seconds.
LEEWAY_S = 30

#: What a parser can stumble over in something made up, beyond its own errors.
_GARBAGE = (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)

#: What a token may say it is; one that was made for something else (a logout, say) is none of ours.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})

_MAX_ROLES = 100


@dataclass(frozen=True)
class TokenTerms:
    """What tokens must be, and which claims say what: each a name, or a path with dots into nested claims."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    tenant_claim: str
    principal_claim: str
    roles_claim: str


@dataclass(frozen=True)
class Claimed:
    """What a valid token says."""

    tenant_id: str
    subject: str
    roles: frozenset[str]


class _Pinned(JWSRegistry):
    """The algorithms that were pinned, whatever joserfc recommends; headers that it does not know are let be."""

    max_header_length = 4096
    max_payload_length = MAX_TOKEN_CHARACTERS

    def get_alg(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in (self.allowed or ()):
            raise ValueError("the algorithm is not one of those pinned")
        return self.algorithms[name]


class Tokens:
    """Checks tokens. Whose they are is remembered as for keys; the token itself is checked at each request."""

    def __init__(self, database: Database, issuer_keys: IssuerKeys, terms: TokenTerms) -> None:
        self._database = database
        self._keys = issuer_keys
        self._terms = terms
        self._registry = _Pinned(algorithms=terms.algorithms & ALGORITHMS, strict_check_header=False)
        self._remembered: Remembered[tuple[str, str], tuple[str, frozenset[str]]] = Remembered(REMEMBERED_S, 10_000)

    async def caller(self, token: str) -> Caller:
        """Who a token belongs to.

        Raises:
            CredentialRefused: it is not valid, or its tenant is not known.
            Unavailable: its key is not known here, and the identity provider does not answer.
        """
        claims = await self._claims(token)
        claimed = self._mapped(claims)
        of_whom = claimed.tenant_id, claimed.subject
        found = self._remembered.get(of_whom)
        if found is None:
            mark = self._remembered.mark
            found = await self._find(claimed)
            self._remembered.put(of_whom, found, mark)
        person, names = found
        return Caller(claimed.tenant_id, person, claimed.roles, names, has_token=True)

    def forget(self) -> None:
        """Ask the database of each principal anew."""
        self._remembered.forget(lambda _: True)

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            _refuse("it is too long")
        try:
            signed = jws.extract_compact(token.encode(), registry=self._registry)
            kid = self._kid(signed)
        except _GARBAGE as error:
            _refuse("it can't be read", error)
        key = await self._keys.get(kid)
        if key is None:
            _refuse("its key is not known")
        try:
            if not jws.validate_compact(signed, key, registry=self._registry):
                _refuse("its signature is wrong")
            claims = json.loads(signed.payload)
            self._check(claims)
        except _GARBAGE as error:
            _refuse("it is not valid", error)
        found: dict[str, Any] = claims
        return found

    def _kid(self, signed: CompactSignature) -> str:
        header = signed.headers()
        self._registry.check_header(header)
        # Before the key is looked for, so that nobody asks the provider with a token that could not be valid anyhow.
        self._registry.get_alg(header["alg"])
        if str(header.get("typ", "jwt")).lower() not in _TYPES:
            raise ValueError("it is a token for something else")
        kid = header.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_NAME_CHARACTERS or "b64" in header:
            raise ValueError("it names no key")
        return kid

    def _check(self, claims: Any) -> None:
        if not isinstance(claims, dict):
            raise ValueError("its claims are no object")
        JWTClaimsRegistry(
            now=int(time.time()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._terms.issuer},
            aud={"essential": True, "value": self._terms.audience},
            exp={"essential": True},
        ).validate(claims)

    def _mapped(self, claims: dict[str, Any]) -> Claimed:
        tenant_id = _claim(claims, self._terms.tenant_claim)
        subject = _claim(claims, self._terms.principal_claim)
        if not isinstance(tenant_id, str) or not is_tenant(tenant_id):
            _refuse("it names no tenant")
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= MAX_NAME_CHARACTERS:
            _refuse("it names no principal")
        return Claimed(tenant_id, subject, _roles(_claim(claims, self._terms.roles_claim)))

    async def _find(self, claimed: Claimed) -> tuple[str, frozenset[str]]:
        kind = IdentityKind.OIDC
        async with self._database.tenant(claimed.tenant_id) as connection:
            if not await tenants.is_known(connection, claimed.tenant_id):
                _refuse("its tenant is not known")
            return await identities.names_of(
                connection, claimed.tenant_id, kind, claimed.subject, unlinked=kind.principal(claimed.subject)
            )


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, which may have dots of its own, or else by a path into nested ones."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _roles(claim: Any) -> frozenset[str]:
    """Roles, as a list or as words; what could be no role's name is none."""
    listed = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(role for role in listed[:_MAX_ROLES] if isinstance(role, str) and is_role(role))


def _refuse(why: str, error: Exception | None = None) -> NoReturn:
    # Of an error its kind and no more: its text may quote the token.
    log.info("a token was refused: %s%s", why, "" if error is None else f" ({type(error).__name__})")
    raise CredentialRefused("The token is not valid.") from None
