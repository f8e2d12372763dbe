"""An identity provider: a real server with a discovery document and keys, which can rotate them, break and count."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast.dev.ports import free_port
from holdfast.dev.serving import serving

AUDIENCE = "holdfast"

Json = dict[str, Any]


def rsa(kid: str) -> Key:
    """A new key with an id."""
    return RSAKey.generate_key(2048, {"kid": kid})


def ec(kid: str) -> Key:
    """A new key with an id."""
    return ECKey.generate_key("P-256", {"kid": kid})


def ed25519(kid: str) -> Key:
    """A new key with an id."""
    return OKPKey.generate_key("Ed25519", {"kid": kid})


_ALGORITHMS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


class _Anything(jws.JWSRegistry):
    """Signs with what is asked for, also where joserfc would warn."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


@dataclass
class IdentityProvider:
    """Signs tokens, and shows the keys that it has published."""

    url: str
    published: list[Key] = field(default_factory=list)
    raw: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    breaks: bool = False
    discovery: Json = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{self.url}/realm"

    def claims(self, **claims: Any) -> Json:
        """The claims of a good token, with changes; None leaves a claim out."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": AUDIENCE, "sub": "4711", "iat": now, "exp": now + 300, "roles": ["client"]}
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def token(self, key: Key | None = None, header: Json | None = None, **claims: Any) -> str:
        """A token, signed with a key, the newest by default."""
        key = key or self.published[-1]
        full_header = {"alg": _ALGORITHMS[key.key_type], "kid": key.kid, **(header or {})}
        return jwt.encode(full_header, self.claims(**claims), key, registry=_Anything(strict_check_header=False))

    async def _discover(self, request: Request) -> JSONResponse:
        self.asked.append(request.url.path)
        document = {"issuer": self.issuer, "jwks_uri": f"{self.url}/keys", **self.discovery}
        return JSONResponse(document, status_code=500 if self.breaks else 200)

    async def _keys(self, request: Request) -> JSONResponse:
        self.asked.append(request.url.path)
        keys = [*self.raw, *(key.as_dict(private=False) for key in self.published)]
        return JSONResponse({"keys": keys}, status_code=500 if self.breaks else 200)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["IdentityProvider"]:
        """Serve while the block runs."""
        routes = [Route("/realm/.well-known/openid-configuration", self._discover), Route("/keys", self._keys)]
        async with serving(Starlette(routes=routes), int(self.url.rpartition(":")[2])):
            yield self


def new_identity_provider() -> IdentityProvider:
    """One that does not run yet, with one key."""
    return IdentityProvider(f"http://127.0.0.1:{free_port()}", [rsa("first")])
