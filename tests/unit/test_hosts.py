"""The entries of `http.allow`: what each allows, and what is said of one that can't be meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.domain.agents import HttpAccess
from holdfast.domain.hosts import read_entry, read_host


@pytest.mark.parametrize(
    ("entry", "scheme", "host", "port", "admitted"),
    [
        ("api.example.com", "https", "api.example.com", 443, True),
        ("api.example.com", "http", "api.example.com", 80, True),
        ("api.example.com", "https", "api.example.com", 80, False),
        ("api.example.com", "http", "api.example.com", 443, False),
        ("api.example.com", "https", "api.example.com", 8443, False),
        ("api.example.com", "https", "example.com", 443, False),
        ("api.example.com", "https", "evil-api.example.com", 443, False),
        ("api.example.com", "https", "api.example.com.evil.org", 443, False),
        ("API.Example.com", "https", "api.example.com", 443, True),
        ("api.example.com:8443", "https", "api.example.com", 8443, True),
        ("api.example.com:8443", "https", "api.example.com", 443, False),
        ("*.example.org", "https", "a.example.org", 443, True),
        ("*.example.org", "https", "a.b.example.org", 443, True),
        ("*.example.org", "https", "example.org", 443, False),
        ("*.example.org", "https", "evilexample.org", 443, False),
        ("*.example.org:8080", "http", "a.example.org", 8080, True),
        ("https://api.example.com", "https", "api.example.com", 443, True),
        ("https://api.example.com", "http", "api.example.com", 80, False),
        ("http://127.0.0.1:8080", "http", "127.0.0.1", 8080, True),
        ("http://127.0.0.1:8080", "http", "127.0.0.1", 80, False),
        ("http://127.0.0.1:8080", "https", "127.0.0.1", 8080, False),
        ("http://127.0.0.1:8080", "http", "127.0.0.2", 8080, False),
        ("http://127.0.0.1:8080", "http", "::ffff:127.0.0.1", 8080, False),
        ("http://[::1]:8080", "http", "0:0:0:0:0:0:0:1", 8080, True),
        ("1.1.1.1", "https", "1.1.1.1", 443, True),
        ("[2606:4700::1111]", "https", "2606:4700::1111", 443, True),
    ],
)
def test_what_an_entry_allows(entry: str, scheme: str, host: str, port: int, *, admitted: bool) -> None:
    assert read_entry(entry).admits(scheme, read_host(host), port) is admitted


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("*", "'*' would allow every host; name the hosts, like api.example.com or *.example.org"),
        ("*:443", "'*:443' would allow every host"),
        ("https://*", "'https://*' would allow every host"),
        ("*.com", "'*.com' would allow a whole top-level domain"),
        ("*.*", "'*' is not a host"),
        ("*example.com", "is not a host"),
        ("api.*.com", "is not a host"),
        ("*.127.0.0.1", "an address has no subdomains"),
        ("", "is not a host"),
        ("https://", "is not a host"),
        ("api.example.com/v1", "is not a host; write it like api.example.com, *.example.org or http://10.0.0.5:8080"),
        ("https://api.example.com/", "is not a host"),
        ("ftp://api.example.com", "is not a host"),
        ("user@api.example.com", "is not a host"),
        ("api.example.com.", "is not a host"),
        ("api..example.com", "is not a host"),
        ("api example.com", "is not a host"),
        ("api.example.com\n", "is not a host"),
        ("bücher.example", "is not a host"),
        ("api.example.com:", "is not a host"),
        ("api.example.com:0", "0 is not a port"),
        ("api.example.com:70000", "70000 is not a port"),
        ("localhost", "'localhost' is a name inside a network; name its address, like http://10.0.0.5:8080"),
        ("http://orders:8080", "is a name inside a network"),
        ("2130706433", "neither a name nor a whole address"),
        ("127.1", "neither a name nor a whole address"),
        ("0x7f.0.0.1", "neither a name nor a whole address"),
        ("api.0x7f000001", "neither a name nor a whole address"),
        ("10.0.0.5", "'10.0.0.5' is a private address; if it is meant, name its origin, like http://10.0.0.5:8080"),
        ("10.0.0.5:8080", "is a private address; if it is meant, name its origin"),
        ("http://169.254.169.254", "can't be allowed: it is neither a public nor a private address"),
        ("http://0.0.0.0:80", "can't be allowed"),
        ("http://[::ffff:127.0.0.1]", "can't be allowed"),
        ("http://[fe80::1]", "can't be allowed"),
        ("::1", "is not a host"),
        ("[1.2.3.4]", "is not a host"),
    ],
)
def test_an_entry_that_can_not_be_meant(entry: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_entry(entry)
    assert expected in str(raised.value)
    with pytest.raises(ValidationError):
        HttpAccess(allow=(entry,))


@given(st.from_regex(r"[0-9a-fx.]{1,20}", fullmatch=True))
def test_what_is_taken_for_a_name_is_never_resolved_as_an_address(text: str) -> None:
    try:
        host = read_host(text)
    except ValueError:
        return
    assert not isinstance(host, str) or not host.rpartition(".")[2].isdigit()
