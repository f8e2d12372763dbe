"""Where webhooks may go: to any public address by https, and to others only where the operator names them.

A tenant chooses where its webhooks go, and whoever runs Holdfast has other servers beside it, which trust who is
inside the network. So a name leads to public addresses or nowhere (the same guard as of the tool `http_request`), and a
private address may be told only if it is itself written down.
"""

from dataclasses import dataclass

import httpx

from holdfast.domain.addresses import Address, is_public
from holdfast.domain.hosts import AllowedHost, read_host
from holdfast.tools.http_rules import RequestRefused, port_of, read_url

MAX_URL_CHARACTERS = 2_000


@dataclass(frozen=True)
class Receiver:
    """An address that may be told. `named_address`: the one that it names itself, which need not be public."""

    url: httpx.URL
    named_address: Address | None


@dataclass(frozen=True)
class Receivers:
    """Which addresses may be told.

    Args:
        allowed: hosts that the operator names: also by http, and though they are private.
        allows_loopback: this machine may be told, by its address: for development.
    """

    allowed: tuple[AllowedHost, ...] = ()
    allows_loopback: bool = False

    def read(self, text: str) -> Receiver:
        """An address that somebody wants to be told at.

        Raises:
            RequestRefused: that can't be; the text says why.
        """
        if len(text) > MAX_URL_CHARACTERS:
            raise RequestRefused(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
        url = read_url(text)
        try:
            host = read_host(url.raw_host.decode("ascii"))
        except ValueError as error:
            raise RequestRefused(f"the URL's host can't be asked: {error}") from error
        address = None if isinstance(host, str) else host
        if self._is_named(url, host) or (address is not None and self.allows_loopback and address.is_loopback):
            return Receiver(url, address)
        if url.scheme != "https":
            raise RequestRefused("the URL must begin with https://; what it is told goes over the Internet")
        if address is not None and not is_public(address):
            raise RequestRefused("the URL's address is not public; HOLDFAST_WEBHOOK_ALLOW would have to name it")
        return Receiver(url, None)

    def _is_named(self, url: httpx.URL, host: str | Address) -> bool:
        return any(entry.admits(url.scheme, host, port_of(url)) for entry in self.allowed)
