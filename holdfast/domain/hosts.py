"""The entries of an agent's `http.allow`: which hosts its HTTP requests may go to.

    api.example.com          that host, by http on port 80 or https on port 443
    api.example.com:8443     that host on that port
    *.example.org            every host below example.org, not example.org itself
    https://api.example.com  that origin: scheme, host and port
    http://127.0.0.1:8080    that origin, although its address is private

A private address is allowed only where it is itself written down, with its scheme. No name gives that permission:
whoever answers for a name in DNS could then point it at anything inside.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from holdfast.domain.addresses import Address, is_nameable, is_public

#: The port of a scheme where none is given.
DEFAULT_PORTS = {"http": 80, "https": 443}

_ENTRY = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<wildcard>\*\.)?"
    r"(?:\[(?P<ipv6>[0-9a-f.]*:[0-9a-f:.]*)\]|(?P<name>[^:/\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)
_EVERY_HOST = re.compile(r"(?:https?://)?\*(?::[0-9]*)?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

#: Whoever resolves such a name takes it for an IPv4 address in decimal, octal or hexadecimal, whole or in part.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@dataclass(frozen=True)
class AllowedHost:
    """An entry, read.

    Args:
        host: a name in lower case, or an address.
        scheme: the only one that is allowed; None: both.
        port: the only one that is allowed; None: the scheme's own.
        covers_subdomains: every host below `host` is meant, not `host` itself.
    """

    host: str | Address
    scheme: str | None = None
    port: int | None = None
    covers_subdomains: bool = False

    def admits(self, scheme: str, host: str | Address, port: int) -> bool:
        """Whether a request to this origin may be made."""
        if self.scheme not in (None, scheme) or port != (self.port or DEFAULT_PORTS[scheme]):
            return False
        if self.covers_subdomains:
            return isinstance(host, str) and host.endswith(f".{self.host}")
        return host == self.host


def read_host(text: str) -> str | Address:
    """A host as entries and requests are compared by: an address as such, a name in lower case.

    Raises:
        ValueError: it is neither; or it is a name that would be taken for an address, such as 127.1 or 0x7f000001.
    """
    try:
        return ip_address(text)
    except ValueError:
        name = text.lower()
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not a host; write it like api.example.com")
    if _NUMERIC.fullmatch(name):
        raise ValueError(f"{text!r} is neither a name nor a whole address; write an address like 203.0.113.7")
    return name


def read_entry(entry: str) -> AllowedHost:
    """An entry of `http.allow`.

    Raises:
        ValueError: it is none; the text says how to write it.
    """
    text = entry.lower()
    if _EVERY_HOST.fullmatch(text):
        raise ValueError(f"{entry!r} would allow every host; name the hosts, like api.example.com or *.example.org")
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{entry!r} is not a host; write it like api.example.com, *.example.org or http://10.0.0.5:8080"
        )
    allowed = AllowedHost(
        host=read_host(match["ipv6"] or match["name"]),
        scheme=match["scheme"],
        port=None if match["port"] is None else _port(match["port"]),
        covers_subdomains=match["wildcard"] is not None,
    )
    _check(entry, allowed)
    return allowed


def _port(digits: str) -> int:
    if not 1 <= int(digits) <= 65535:
        raise ValueError(f"{digits} is not a port; they go from 1 to 65535")
    return int(digits)


def _check(entry: str, allowed: AllowedHost) -> None:
    if not isinstance(allowed.host, str):
        _check_address(entry, allowed, allowed.host)
    elif "." not in allowed.host and allowed.covers_subdomains:
        raise ValueError(f"{entry!r} would allow a whole top-level domain; name the hosts, like *.example.org")
    elif "." not in allowed.host:
        # It would resolve to a private address, and each request would be refused.
        raise ValueError(f"{entry!r} is a name inside a network; name its address, like http://10.0.0.5:8080")


def _check_address(entry: str, allowed: AllowedHost, address: Address) -> None:
    if allowed.covers_subdomains:
        raise ValueError(f"{entry!r}: an address has no subdomains")
    if is_public(address):
        return
    if not is_nameable(address):
        raise ValueError(f"{entry!r} can't be allowed: it is neither a public nor a private address")
    if allowed.scheme is None:
        raise ValueError(f"{entry!r} is a private address; if it is meant, name its origin, like http://10.0.0.5:8080")
