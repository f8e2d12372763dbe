"""Which addresses of the network are public, so that a host chosen by a model may be asked there.

Python's own `is_global` is not enough: it is true for addresses that carry another one within (6to4, NAT64), and so
for forms of 169.254.169.254, where clouds hand out credentials; and it differs between Python's patch versions. What
must be blocked is therefore named here, and `is_global` is asked besides.

A limit: a network that translates under a prefix of its own (RFC 6052) can't be told from the outside.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Where IPv6 has public addresses at all; all else is local, multicast, reserved, or carries an IPv4 address.
_IPV6_UNICAST = IPv6Network("2000::/3")

#: IANA's special-purpose registries: what is not for everybody, or stands for another address.
_BLOCKED: tuple[Network, ...] = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared between a provider and its customers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments: Teredo, which carries IPv4, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries IPv4
        "3fff::/20",  # documentation
    )
)

#: What an operator may name in an allow-list. Link-local is not among them: nothing but trouble answers there.
_NAMEABLE: tuple[Network, ...] = tuple(
    ip_network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is reachable by everybody, and stands for no other one."""
    if isinstance(address, IPv6Address) and (address not in _IPV6_UNICAST or address.scope_id is not None):
        return False
    return address.is_global and not _within(address, _BLOCKED)


def is_nameable(address: Address) -> bool:
    """Whether an address that is not public may be allowed by naming it: a private or a loopback one."""
    return getattr(address, "scope_id", None) is None and _within(address, _NAMEABLE)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
