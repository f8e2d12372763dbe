"""The issuer's keys, from a real server: rotated, withdrawn, asked for seldom, and kept while it is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from joserfc.jwk import OctKey

from holdfast.domain.errors import Unavailable
from holdfast.services.issuer import IssuerKeys
from tests.harness.conditions import until
from tests.harness.identity_provider import IdentityProvider, ec, new_identity_provider


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with new_identity_provider().running() as running:
        yield running


def keys_of(provider: IdentityProvider, *, ask_again_s: float = 0, fresh_s: float = 3600) -> IssuerKeys:
    return IssuerKeys(provider.issuer, None, ask_again_s=ask_again_s, fresh_s=fresh_s)


async def test_the_discovery_document_says_where_they_are(provider: IdentityProvider) -> None:
    keys = keys_of(provider)
    assert await keys.get("first") is not None
    assert await keys.get("first") is not None
    assert provider.asked == ["/realm/.well-known/openid-configuration", "/keys"]


async def test_or_a_setting_does(provider: IdentityProvider) -> None:
    assert await IssuerKeys("https://elsewhere.example", f"{provider.url}/keys").get("first") is not None
    assert provider.asked == ["/keys"]


async def test_a_new_key_is_found_and_one_that_was_withdrawn_goes(provider: IdentityProvider) -> None:
    keys = keys_of(provider, fresh_s=0)
    assert await keys.get("first") is not None
    provider.published[:] = [ec("second")]
    assert await keys.get("second") is not None
    assert await keys.get("first") is None
    provider.published[:] = [ec("third")]
    await keys.get("second")  # known, and old: so the keys are fetched anew, beside the request

    async def is_gone() -> bool:
        return await keys.get("second") is None

    await until(is_gone)
    await keys.close()


async def test_unknown_keys_do_not_have_the_provider_asked_again_and_again(provider: IdentityProvider) -> None:
    keys = keys_of(provider, ask_again_s=3600)
    found = await asyncio.gather(*(keys.get(f"made-up-{number}") for number in range(200)), keys.get("first"))
    assert found[:-1] == [None] * 200
    assert found[-1] is not None
    assert provider.asked.count("/keys") == 1


async def test_known_keys_go_on_while_the_provider_is_away(provider: IdentityProvider) -> None:
    keys = keys_of(provider, fresh_s=0)
    assert await keys.get("first") is not None
    provider.breaks = True
    for _ in range(3):
        assert await keys.get("first") is not None
    with pytest.raises(Unavailable, match="identity provider"):
        await keys.get("second")
    provider.published.append(ec("second"))
    provider.breaks = False
    assert await keys.get("second") is not None
    await keys.close()


async def test_without_any_key_it_can_not_be_told(provider: IdentityProvider) -> None:
    provider.breaks = True
    keys = keys_of(provider, ask_again_s=3600)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await keys.get("first")
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    "document", [{"issuer": "https://evil.example"}, {"jwks_uri": "ftp://x/keys"}, {"jwks_uri": 5}]
)
async def test_a_document_that_is_not_the_issuers_gives_no_keys(
    provider: IdentityProvider, document: dict[str, object]
) -> None:
    provider.discovery = document
    with pytest.raises(Unavailable):
        await keys_of(provider).get("first")


async def test_keys_that_sign_as_well_are_not_taken(provider: IdentityProvider) -> None:
    provider.published.append(OctKey.generate_key(256, {"kid": "secret"}))
    keys = keys_of(provider)
    assert await keys.get("secret") is None
    assert await keys.get("first") is not None


async def test_a_key_that_nobody_can_read_does_not_hide_the_others(provider: IdentityProvider) -> None:
    good = provider.published[0].as_dict(private=False)
    broken = [None, 5, {}, {**good, "kid": 5}, {**good, "kid": "n", "n": "%"}, {"kty": "EC", "kid": "c", "crv": "?"}]
    provider.raw[:] = [*broken, {**good, "kid": "enc", "use": "enc"}]
    keys = keys_of(provider)
    for kid in ("n", "c", "enc"):
        assert await keys.get(kid) is None
    assert await keys.get("first") is not None
