"""Which addresses count as public: those that are, and none that leads inside by another name."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.addresses import is_nameable, is_public

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::8"]

#: 169.254.169.254, where clouds hand out credentials, and 127.0.0.1, in forms that carry them.
CARRIERS = [
    "::ffff:169.254.169.254",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::169.254.169.254",
    "::127.0.0.1",
    "2002:a9fe:a9fe::",
    "2002:7f00:1::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:ffff::7f00:1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001::7f00:1",
]

BLOCKED = [
    *CARRIERS,
    # A public address in such a form is not one either: nobody has a good reason to write it so.
    *("::ffff:8.8.8.8", "::8.8.8.8", "2002:808:808::", "64:ff9b::808:808"),
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::1%lo", "100::1", "100:0:0:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1"),
    *("3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff02::1", "ff0e::1", "2606:4700::1111%1"),
]

ipv4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ipv6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address(text: str) -> None:
    assert is_public(ip_address(text))
    assert not is_nameable(ip_address(text))


@pytest.mark.parametrize("text", BLOCKED)
def test_an_address_that_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.ip_addresses() | ipv4 | ipv6)
def test_no_address_is_public_that_python_takes_for_private(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast and not address.is_reserved)


@given(st.ip_addresses(v=4) | ipv4)
def test_no_address_that_carries_another_is_public(inner: IPv4Address) -> None:
    number = int(inner)
    for carrier in (
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0xFFFF << 48 | number,  # translated
        0x2002 << 112 | number << 80,  # 6to4
        0x64FF9B << 96 | number,  # NAT64
        0x64FF9B0001 << 80 | number,  # NAT64 of a network's own
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),  # Teredo
    ):
        assert not is_public(IPv6Address(carrier))


@pytest.mark.parametrize("text", ["10.0.0.5", "127.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1"])
def test_a_private_address_may_be_named(text: str) -> None:
    assert is_nameable(ip_address(text))


@pytest.mark.parametrize("text", ["0.0.0.0", "169.254.169.254", "224.0.0.1", "fe80::1", "::", *CARRIERS])
def test_what_no_list_can_allow(text: str) -> None:
    assert not is_nameable(ip_address(text))
