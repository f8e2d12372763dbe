"""Tokens of an identity provider: what is let in, and everything else with the same 401."""

import base64
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from holdfast.config.settings import ApiSettings
from holdfast.domain.permissions import Role
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.identity_provider import (
    AUDIENCE,
    IdentityProvider,
    ec,
    ed25519,
    new_identity_provider,
    rsa,
)
from tests.harness.stage import Stage, serving_api

#: The claim that names the tenant, as Auth0 would have it: a URL, dots and all. Roles lie nested, as in Keycloak.
TENANT = "https://holdfast.example/tenant"
CLAIMS = {"oidc_tenant_claim": TENANT, "oidc_roles_claim": "realm_access.roles"}


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[IdentityProvider]:
    async with new_identity_provider().running() as provider:
        provider.published.append(ec("second"))
        provider.published.append(ed25519("third"))
        yield provider


@pytest.fixture(scope="module")
async def url(session_stage: Stage, issuer: IdentityProvider) -> AsyncIterator[str]:
    """An API that takes the provider's tokens."""
    settings = {"oidc_issuer": issuer.issuer, "oidc_audience": AUDIENCE, **CLAIMS}
    async with serving_api(session_stage.database_url, session_stage.task_queue, **settings) as url:
        yield url


async def answer(url: str, token: str, path: str = "/v1/runs") -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30) as client:
        return await client.get(path)


def of(tenant: str, *roles: str, **claims: Any) -> Json:
    """The claims that make a caller."""
    return {TENANT: tenant, "roles": None, "realm_access": {"roles": list(roles or Role)}, **claims}


def forged(header: Json, claims: Json, signature: str = "") -> str:
    """A token by hand."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, signature])


def with_public_key_as_secret(issuer: IdentityProvider, claims: Json) -> str:
    key = issuer.published[0]
    assert isinstance(key, RSAKey)
    signed = forged({"alg": "HS256", "kid": key.kid}, claims).rpartition(".")[0]
    signature = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def with_its_own_key(issuer: IdentityProvider, **claims: Any) -> str:
    mine = rsa("first")
    header = {"jwk": mine.as_dict(private=False), "jku": "http://evil.example/keys", "x5u": "http://evil.example/x"}
    return issuer.token(mine, header, **claims)


NOW = int(time.time())
FIRST = {"alg": "RS256", "kid": "first"}
BAD: dict[str, Callable[[IdentityProvider, str], str]] = {
    "alg none": lambda idp, t: forged({"alg": "none", "kid": "first"}, idp.claims(**of(t))),
    "alg None": lambda idp, t: forged({"alg": "None", "kid": "first"}, idp.claims(**of(t))),
    "no alg": lambda idp, t: forged({"kid": "first"}, idp.claims(**of(t)), "AAAA"),
    "alg is a list": lambda idp, t: forged({"alg": ["RS256"], "kid": "first"}, idp.claims(**of(t)), "AAAA"),
    "HS256 with the public key": lambda idp, t: with_public_key_as_secret(idp, idp.claims(**of(t))),
    "an algorithm that is not pinned": lambda idp, t: idp.token(idp.published[0], {"alg": "RS512"}, **of(t)),
    "the algorithm of another key": lambda idp, t: idp.token(rsa("second"), **of(t)),
    "another issuer's key": lambda idp, t: idp.token(rsa("first"), **of(t)),
    "its own key": lambda idp, t: with_its_own_key(idp, **of(t)),
    "no kid": lambda idp, t: idp.token(header={"kid": ""}, **of(t)),
    "unknown kid": lambda idp, t: idp.token(rsa("unknown"), **of(t)),
    "kid is a path": lambda idp, t: idp.token(header={"kid": "../../dev/null"}, **of(t)),
    "critical header": lambda idp, t: forged(
        {"alg": "RS256", "kid": "first", "crit": ["b64"]}, idp.claims(**of(t)), "AAAA"
    ),
    "critical number": lambda idp, t: forged({"alg": "RS256", "kid": "first", "crit": 5}, idp.claims(**of(t)), "AAAA"),
    "a logout": lambda idp, t: idp.token(header={"typ": "logout+jwt"}, **of(t)),
    "wrong audience": lambda idp, t: idp.token(**of(t, aud="another")),
    "no audience": lambda idp, t: idp.token(**of(t, aud=None)),
    "wrong issuer": lambda idp, t: idp.token(**of(t, iss="https://evil.example")),
    "no issuer": lambda idp, t: idp.token(**of(t, iss=None)),
    "expired": lambda idp, t: idp.token(**of(t, exp=NOW - 3600)),
    "no end": lambda idp, t: idp.token(**of(t, exp=None)),
    "an end in words": lambda idp, t: idp.token(**of(t, exp="tomorrow")),
    "an endless end": lambda idp, t: idp.token(**of(t, exp=float("inf"))),
    "not yet valid": lambda idp, t: idp.token(**of(t, nbf=NOW + 3600)),
    "issued tomorrow": lambda idp, t: idp.token(**of(t, iat=NOW + 86400)),
    "no subject": lambda idp, t: idp.token(**of(t, sub=None)),
    "empty subject": lambda idp, t: idp.token(**of(t, sub="")),
    "subject is a number": lambda idp, t: idp.token(**of(t, sub=4711)),
    "endless subject": lambda idp, t: idp.token(**of(t, sub="x" * 300)),
    "subject with NUL": lambda idp, t: idp.token(**of(t, sub="a\x00b")),
    "no tenant": lambda idp, t: idp.token(**of(t, **{TENANT: None})),
    "unknown tenant": lambda idp, t: idp.token(**of(f"{t}-unknown")),
    "ill-formed tenant": lambda idp, t: idp.token(**of("A'; DROP TABLE tenants")),
    "tenant is a list": lambda idp, t: idp.token(**of(t, **{TENANT: [t]})),
    "claims are a list": lambda idp, t: forged(FIRST, [1], "AAAA"),  # type: ignore[arg-type]
    "header is a list": lambda idp, t: forged(["alg"], idp.claims(**of(t)), "AAAA"),  # type: ignore[arg-type]
    "header is a word": lambda idp, t: forged("alg", idp.claims(**of(t)), "AAAA"),  # type: ignore[arg-type]
    "changed": lambda idp, t: idp.token(**of(t)).replace(".", ".AA", 1),
    "without signature": lambda idp, t: idp.token(**of(t)).rpartition(".")[0] + ".",
    "two parts": lambda idp, t: idp.token(**of(t)).rpartition(".")[0],
    "five parts": lambda idp, t: idp.token(**of(t)) + ".AAAA.AAAA",
    "garbage": lambda *_: "%%%.&&&.###",
    "dots": lambda *_: "..",
    "no token": lambda *_: "hello",
    "deeply nested": lambda *_: base64.urlsafe_b64encode(b"[" * 3000).decode() + ".AAAA.AAAA",
    "long": lambda *_: "A" * 20_000,
    "long parts": lambda *_: ".".join(["A" * 10_000] * 3),
}


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_wrong_is_refused_in_the_same_words(
    url: str, stage: Stage, issuer: IdentityProvider, kind: str
) -> None:
    ada = await stage.caller(new_tenant())
    refused = await answer(url, BAD[kind](issuer, ada.tenant_id))
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert refused.json()["detail"] == "The token is not valid."
    assert (await answer(url, issuer.token(**of(ada.tenant_id)))).status_code == 200, "while a good one opens"


async def test_a_token_of_a_megabyte_is_refused(url: str, stage: Stage, issuer: IdentityProvider) -> None:
    """By the server itself, which reads no such header, and may hang up on it."""
    ada = await stage.caller(new_tenant())
    with contextlib.suppress(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        assert (await answer(url, "A" * 1024 * 1024)).status_code in (400, 401, 431)
    assert (await answer(url, issuer.token(**of(ada.tenant_id)))).status_code == 200


async def test_each_kind_of_key_opens(url: str, stage: Stage, issuer: IdentityProvider) -> None:
    ada = await stage.caller(new_tenant())
    for key in issuer.published:
        assert (await answer(url, issuer.token(key, **of(ada.tenant_id)))).status_code == 200
    for audience in (AUDIENCE, [AUDIENCE, "another"]):
        assert (await answer(url, issuer.token(**of(ada.tenant_id, aud=audience)))).status_code == 200
    skewed = issuer.token(**of(ada.tenant_id, nbf=int(time.time()) + 5, exp=int(time.time()) - 5))
    assert (await answer(url, skewed)).status_code == 200, "clocks differ"


async def test_a_key_opens_beside_tokens(url: str, stage: Stage) -> None:
    ada = await stage.caller(new_tenant())
    assert (await answer(url, ada.key)).status_code == 200
    assert (await answer(url, f"{ada.key}x")).json()["detail"] == "The API key is not known."


@pytest.mark.parametrize(
    ("claim", "status"),
    [
        ({"roles": ["operator"]}, 200),
        ({"roles": "billing operator"}, 200),
        ({"roles": ["billing"]}, 403),
        ({"roles": []}, 403),
        ({"roles": {"operator": True}}, 403),
        ({"roles": [["operator"], {}, None, "Operator", "x" * 1000]}, 403),
        ("operator", 403),
        (None, 403),
    ],
)
async def test_roles_are_the_tokens(url: str, stage: Stage, issuer: IdentityProvider, claim: Any, status: int) -> None:
    ada = await stage.caller(new_tenant())
    token = issuer.token(**of(ada.tenant_id, realm_access=claim))
    assert (await answer(url, token)).status_code == status


async def test_a_token_sees_its_own_tenant(
    url: str, stage: Stage, issuer: IdentityProvider, provider: ScriptedProvider
) -> None:
    ada = await stage.caller(new_tenant())
    run = await ada.ask("hello")
    other = await stage.caller(new_tenant())
    for tenant, status in ((ada.tenant_id, 200), (other.tenant_id, 404)):
        assert (await answer(url, issuer.token(**of(tenant)), f"/v1/runs/{run['id']}")).status_code == status


async def guarded(caller: Caller, seen_by: Caller, provider: ScriptedProvider) -> tuple[Json, Json]:
    """A run that waits for a second pair of eyes."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]))
    run = await caller.ask("pay", agent="guarded")
    return run, await seen_by.only_pending(run)


@pytest.fixture
async def robert(url: str, stage: Stage, issuer: IdentityProvider) -> Caller:
    """Somebody with a token."""
    root = await stage.caller(new_tenant(), "root")
    stage.callers.append(Caller(url, root.key, root.tenant_id, "root"))
    person = Caller(
        url,
        issuer.token(**of(root.tenant_id, "client", "approver", "operator", "billing")),
        root.tenant_id,
        "oidc:4711",
    )
    stage.callers.append(person)
    return person


async def linked(stage: Stage, robert: Caller) -> None:
    """Have the token be robert's, on the process that takes tokens: it forgets at once what it knew of them."""
    *_, root = (caller for caller in stage.callers if caller.person == "root")
    body = {"kind": "oidc", "subject": "4711", "principal": "robert"}
    assert (await root.http.put("/v1/identities", json=body)).status_code == 200


async def test_four_eyes_are_those_of_two_principals(stage: Stage, robert: Caller, provider: ScriptedProvider) -> None:
    """The same human asks with a token and decides with a key, or the other way round."""
    with_key = await stage.caller(robert.tenant_id, "robert", ["billing"])
    run, asked = await guarded(robert, with_key, provider)
    assert (asked["requested_by"], asked["four_eyes"]) == ("oidc:4711", True)
    await linked(stage, robert)
    with_another_key = await stage.caller(robert.tenant_id, "robert", ["billing"])

    for same_person in (robert, with_another_key):
        refused = await same_person.decide(asked)
        assert (refused.status_code, refused.json()["detail"]) == (
            403,
            "This is your own request; somebody else must decide it.",
        )
    run, asked = await guarded(with_another_key, with_another_key, provider)
    assert (await robert.decide(asked)).status_code == 403
    boss = await stage.caller(robert.tenant_id, "boss", ["billing"])
    assert (await boss.decide(asked)).status_code == 200
    assert (await boss.ended(run["id"]))["status"] == "completed"


async def test_what_is_not_linked_is_somebody_else(stage: Stage, robert: Caller, provider: ScriptedProvider) -> None:
    namesake = await stage.caller(robert.tenant_id, "4711", ["billing"])
    run, asked = await guarded(robert, namesake, provider)
    assert (await namesake.decide(asked)).status_code == 200
    assert (await namesake.ended(run["id"]))["status"] == "completed"


async def test_what_was_done_before_a_link_stays_ones_own(
    url: str, stage: Stage, issuer: IdentityProvider, robert: Caller
) -> None:
    run = await robert.ask("hello")
    await linked(stage, robert)
    with_key = await stage.caller(robert.tenant_id, "robert", only=[Role.CLIENT])
    stranger = await stage.caller(robert.tenant_id, "stranger", only=[Role.CLIENT])
    assert (await with_key.http.get(f"/v1/runs/{run['id']}")).status_code == 200
    assert (await stranger.http.get(f"/v1/runs/{run['id']}")).status_code == 404


async def test_an_identity_that_makes_no_sense_is_not_linked(ada: Caller) -> None:
    async def link(**body: Any) -> int:
        return (await ada.http.put("/v1/identities", json={"principal": "ada", **body})).status_code

    assert await link(kind="key", subject="key_unknown") == 404
    assert await link(kind="email", subject="ada@example.com") == 422
    assert await link(kind="oidc", subject="") == 422
    assert await link(kind="oidc", subject="4711", principal="oidc:4712") == 422
    assert (await ada.http.delete("/v1/identities?kind=oidc&subject=4711")).status_code == 404
    assert (await ada.get("/v1/identities"))["data"] == []


def test_the_defaults_are_asymmetric() -> None:
    assert ApiSettings.model_fields["oidc_algorithms"].default == ("RS256", "ES256", "EdDSA")
