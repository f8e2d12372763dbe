"""Sealing: who can open what, what a key looks like, and that nothing shows one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from holdfast.secrecy.keyring import CantOpen, Forged, Keyring, UnknownKey, new_key
from holdfast.temporal.codec import SEALED, SealingCodec

OLD, NEW = new_key("old"), new_key("new")
RING = Keyring.parse(f"{NEW},{OLD}")


def test_what_is_sealed_opens_in_its_own_context_alone() -> None:
    sealed = RING.seal(b"plain", "provider key", "a", "openai")
    assert b"plain" not in sealed
    assert RING.open(sealed, "new", "provider key", "a", "openai") == b"plain"
    for context in (
        ("provider key", "b", "openai"),
        ("provider key", "a", "anthropic"),
        ("provider key", "aopenai"),
        (),
    ):
        with pytest.raises(Forged):
            RING.open(sealed, "new", *context)
    with pytest.raises(Forged):
        RING.open(sealed, "old", "provider key", "a", "openai")
    with pytest.raises(UnknownKey, match="there is no key 'newest'"):
        RING.open(sealed, "newest", "provider key", "a", "openai")


@given(st.binary(max_size=60), st.text(max_size=5))
def test_nothing_but_what_was_sealed_opens(sealed: bytes, key_id: str) -> None:
    for name in (key_id, "new"):
        with pytest.raises(CantOpen):
            RING.open(sealed, name, "context")


def test_the_same_is_never_sealed_the_same() -> None:
    assert len({RING.seal(b"plain", "c") for _ in range(1000)}) == 1000


def test_the_first_key_seals_and_all_open() -> None:
    by_old = Keyring.parse(OLD).seal(b"plain", "c")
    assert RING.sealing_key_id == "new"
    assert RING.open(by_old, "old", "c") == b"plain"
    with pytest.raises(UnknownKey):
        Keyring.parse(OLD).open(RING.seal(b"plain", "c"), "new", "c")


@pytest.mark.parametrize("separator", [",", " ", "\n", ", ", ",\n"])
def test_keys_may_stand_in_one_line_or_in_several(separator: str) -> None:
    assert repr(Keyring.parse(f"{NEW}{separator}{OLD}\n")) == "Keyring(new, old)"


SECRET = base64.b64encode(b"a secret of thirty-two bytes, ok").decode()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no key"),
        (SECRET, "number 1 is not id:key"),
        (f"good:{SECRET},{SECRET}", "number 2 is not id:key"),
        (f"an id!:{SECRET}", "number 1 is not id:key"),
        (f"old:{SECRET},old:{SECRET}", "has two keys 'old'"),
        (f"old:{SECRET[:-4]}", "the key 'old' has 30 bytes instead of 32"),
        (f"old:{SECRET[:-1]}", "the key 'old' is not base64"),
        (f"old:{SECRET}!", "the key 'old' is not base64"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as raised:
        Keyring.parse(text)
    assert SECRET[:8] not in str(raised.value)


@given(metadata=st.dictionaries(st.text(max_size=20), st.binary(max_size=20)), data=st.binary(max_size=100))
async def test_decoding_never_raises(metadata: dict[str, bytes], data: bytes) -> None:
    codec = SealingCodec(RING, "t")
    for given_metadata in (metadata, metadata | {"encoding": SEALED}, metadata | {"encryption-key-id": b"new"}):
        payload = Payload(metadata=given_metadata, data=data)
        assert len(await codec.decode([payload])) == 1
        assert codec.opened_for("t", payload) in (payload,)


@given(metadata=st.dictionaries(st.text(max_size=20), st.binary(max_size=20)), data=st.binary(max_size=100))
async def test_a_payload_comes_back_as_it_went(metadata: dict[str, bytes], data: bytes) -> None:
    payload = Payload(metadata=metadata, data=data)
    for codec in (SealingCodec(RING), SealingCodec(RING, "t")):
        (sealed,) = await codec.encode([payload])
        assert set(sealed.metadata) == {"encoding", "encryption-key-id", "tenant"}
        assert await SealingCodec(RING, "t").decode([sealed]) == [payload]
