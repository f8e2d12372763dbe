"""What a model may ask by HTTP: hosts written in every way that gets around lists, headers, and redirects."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.agents import HttpAccess
from holdfast.tools.http_rules import (
    MAX_HEADER_CHARACTERS,
    MAX_HEADERS,
    Request,
    RequestRefused,
    allowed_request,
    redirected,
)
from tests.unit.builders import texts

ACCESS = HttpAccess(
    allow=("allowed.example", "*.sub.example", "ported.example:8443", "https://tls.example", "http://127.0.0.1:8080")
)

#: No URL here may be asked, whatever its host resolves to.
HOSTILE = [
    # Other hosts, plainly.
    *(
        "http://evil.example/",
        "http://localhost/",
        "http://localhost:8080/",
        "http://127.0.0.1/",
        "http://127.0.0.1:80/",
    ),
    *("https://127.0.0.1:8080/", "http://127.0.0.2:8080/", "http://0.0.0.0:8080/", "http://[::1]:8080/"),
    *("http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/", "http://10.0.0.1/"),
    # 127.0.0.1 and 169.254.169.254 in decimal, octal, hexadecimal, and shortened.
    *("http://2130706433:8080/", "http://2852039166/", "http://017700000001:8080/", "http://0x7f000001:8080/"),
    *("http://0177.0.0.1:8080/", "http://0x7f.0.0.1:8080/", "http://0x7f.1:8080/", "http://127.1:8080/"),
    *("http://127.0.1:8080/", "http://0:8080/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/"),
    *("http://0xa9.0xfe.0xa9.0xfe/", "http://169.254.43518/", "http://425.510.425.510/", "http://127.0.0.1.:8080/"),
    *("http://00127.0.0.1:8080/", "http://127.000.000.001:8080/", "http://4294967297/", "http://1.0x.allowed.example/"),
    # Other scripts' digits, letters and dots.
    "http://\uff11\uff12\uff17.0.0.1:8080/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:8080/",
    "http://127\u30020\u30020\u30021:80/",
    "http://169\uff0e254\uff0e169\uff0e254/",
    "http://\u0661\u0662\u0667.0.0.1/",
    "http://allowed\u3002example.evil.example/",
    "http://\u0430llowed.example/",
    "http://allowed.ex\u00adample.evil.example/",
    "http://allowed.example\u2044.evil.example/",
    "http://allowed.example\uff0fevil.example/",
    "http://allowed.example\u2100.evil.example/",
    "http://evil.example\u2025sub.example/",
    # IPv6: mapped, compatible, 6to4, NAT64, zones.
    *("http://[::ffff:127.0.0.1]:8080/", "http://[::ffff:7f00:1]:8080/", "http://[::127.0.0.1]:8080/"),
    *("http://[2002:7f00:1::]:8080/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::a9fe:a9fe]/"),
    *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1%25lo]:8080/", "http://[fd00:ec2::254]/"),
    *("http://[0:0:0:0:0:ffff:127.0.0.1]:8080/", "http://[::]:8080/", "http://[127.0.0.1]:8080/", "http://[::1/"),
    # One host before the @, another after it.
    *(
        "http://allowed.example@127.0.0.1:8080/",
        "http://allowed.example:80@evil.example/",
        "http://u:p@allowed.example/",
    ),
    *("http://evil.example@allowed.example/", "http://allowed.example%40evil.example/", "http://:x@allowed.example/"),
    "http://evil.example#@allowed.example/",
    *("http://evil.example?@allowed.example/", "http://evil.example/@allowed.example/"),
    # Backslashes, tabs, line breaks, spaces, percent signs.
    *("http://allowed.example\\@evil.example/", "http://evil.example\\allowed.example/", "http:\\\\allowed.example/"),
    *("http://allowed.example\t.evil.example/", "http://allowed\t.example/", "http://allowed.example\r\nX: y/"),
    *(" http://allowed.example/", "http://allowed.example /", "http://allowed.example\x00.evil.example/"),
    *("http://%61llowed.example/", "http://%31%32%37.0.0.1/", "http://allowed.example%00.evil.example/"),
    *(
        "http://allowed.example%2eevil.example/",
        "http://allowed.example%5c@evil.example/",
        "http://allowed.example\x7f/",
    ),
    *("http://allowed.example\u0085/", "http://allowed.example/a\\..\\b", "http://allowed.example/a\xa0b"),
    # Names that look alike to a careless comparison.
    *("http://allowed.example./", "http://allowed.example.evil.example/", "http://notallowed.example/"),
    *("http://sub.example/", "http://evilsub.example/", "http://.sub.example/", "http://a..sub.example/"),
    *("http://*.sub.example/", "http://a.sub.example.evil.example/", "http://a.sub.example./", "http://-.sub.example/"),
    # Ports and schemes.
    *("http://allowed.example:22/", "http://allowed.example:443/", "https://allowed.example:80/"),
    *("http://allowed.example:0/", "http://allowed.example:65616/", "http://allowed.example:80:80/"),
    *("https://ported.example/", "https://ported.example:443/", "http://tls.example/", "http://tls.example:443/"),
    *("file:///etc/passwd", "ftp://allowed.example/", "gopher://allowed.example:80/_x", "//allowed.example/", "/x"),
    *(
        "javascript://allowed.example/",
        "data:,x",
        "unix:///run/docker.sock",
        "http+unix://%2frun/",
        "ws://allowed.example/",
    ),
    *("", "http://", "http:///", "http:allowed.example", "http:/allowed.example/", "allowed.example", "http://?x"),
    *(
        "http://allowed.example:x/",
        "http://[allowed.example]/",
        "jar:http://allowed.example!/",
        "dict://127.0.0.1:8080/x",
    ),
    "http://\ud800.sub.example/",
]


def asked(url: str, method: str = "GET", body: str | None = None, **headers: str) -> Request:
    return allowed_request(ACCESS, method, url, headers, body)


def refusal(headers: Mapping[str, str]) -> str:
    with pytest.raises(RequestRefused) as raised:
        allowed_request(ACCESS, "GET", "https://allowed.example/", headers, None)
    return str(raised.value)


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(HOSTILE) == len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_a_url_that_gets_around_no_list(url: str) -> None:
    with pytest.raises(RequestRefused):
        asked(url)


@pytest.mark.parametrize("location", HOSTILE, ids=ascii)
def test_a_redirect_is_held_to_the_same(location: str) -> None:
    first = asked("http://allowed.example/first")
    try:
        following = redirected(ACCESS, first, 302, location)
    except RequestRefused:
        return
    # A relative one stays where it came from.
    assert following.url.raw_host == b"allowed.example"
    assert (following.url.scheme, following.port, following.url.userinfo) == ("http", 80, b"")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://allowed.example/v1?q=1#part", b"allowed.example", 443),
        ("HTTP://ALLOWED.example:80", b"allowed.example", 80),
        ("https://a.b.sub.example/", b"a.b.sub.example", 443),
        ("https://b\u00fccher.sub.example/", b"xn--bcher-kva.sub.example", 443),
        ("https://ported.example:8443/", b"ported.example", 8443),
        ("http://127.0.0.1:8080/@evil.example", b"127.0.0.1", 8080),
        ("http://allowed.example?@evil.example/", b"allowed.example", 80),
        ("http://allowed.example#@evil.example:81/@", b"allowed.example", 80),
        # Read as the same host by whoever reads it: the dots of other scripts are dots in names.
        ("http://allowed\u3002example/", b"allowed.example", 80),
    ],
)
def test_a_url_that_may_be_asked(url: str, host: bytes, port: int) -> None:
    request = asked(url)
    assert (request.url.raw_host, request.port) == (host, port)


def test_only_an_address_that_the_list_names_may_be_private() -> None:
    assert str(asked("http://127.0.0.1:8080/").named_address) == "127.0.0.1"
    assert asked("http://allowed.example/").named_address is None


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(RequestRefused, match=r"^this agent may ask no host: its http.allow is empty$"):
        allowed_request(HttpAccess(), "GET", "https://allowed.example/", {}, None)


def test_a_refusal_says_what_would_be_allowed() -> None:
    with pytest.raises(RequestRefused, match=r"^this agent may not ask https://evil.example:81, only allowed"):
        asked("https://evil.example:81/secret?token=1")


@given(texts)
def test_no_text_as_url_asks_another_host(text: str) -> None:
    for url in (text, f"http://{text}", f"http://allowed.example{text}", f"http://{text}allowed.example/"):
        try:
            request = asked(url)
        except RequestRefused:
            continue
        assert request.url.raw_host in (b"allowed.example", b"tls.example", b"127.0.0.1") or (
            request.url.raw_host.endswith(b".sub.example")
        )


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer"),
        *("Upgrade", "Expect", "Cookie", "Accept-Encoding", "Proxy-Authorization", "HTTP2-Settings"),
        "X-HTTP-Method-Override",
    ],
)
def test_a_header_that_a_model_can_not_set(name: str) -> None:
    assert refusal({name: "x"}) == f"the header {name!r} can't be set"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nHost: evil.example"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\x00b"),
        ("X", "caf\u00e9"),
        ("X", "a\u560a"),
        ("X\r\nY", "a"),
        ("X:", "a"),
        ("X Y", "a"),
        (" Host", "a"),
        ("Host ", "a"),
        ("", "a"),
        ("\u212aey", "a"),
    ],
)
def test_a_header_that_would_be_more_than_one(name: str, value: str) -> None:
    assert refusal({name: value}).endswith("has a line break or a character that headers can't have")


def test_headers_are_limited_in_number_and_length() -> None:
    assert refusal({f"x-{number}": "" for number in range(MAX_HEADERS + 1)}).startswith("at most 50 headers")
    assert refusal({"x": "a" * MAX_HEADER_CHARACTERS}).startswith("at most 50 headers")
    assert refusal({"X-Key": "1", "x-key": "2"}) == "the header 'x-key' is given twice"


def test_a_body_belongs_to_methods_that_have_one() -> None:
    with pytest.raises(RequestRefused, match=r"^a GET request has no body$"):
        asked("https://allowed.example/", "GET", "text")
    with pytest.raises(RequestRefused, match=r"half of a surrogate pair"):
        asked("https://allowed.example/", "POST", "\ud800")
    assert asked("https://allowed.example/", "POST", "h\u00e9").body == "h\u00e9".encode()


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        *(("POST", status, "GET") for status in (301, 302, 303)),
        *(("POST", status, "POST") for status in (307, 308)),
        *(("GET", status, "GET") for status in (301, 302, 303, 307, 308)),
        *(("HEAD", status, "HEAD") for status in (301, 302, 303, 307, 308)),
        *((method, 303, "GET") for method in ("PUT", "PATCH", "DELETE")),
        *((method, status, method) for method in ("PUT", "PATCH", "DELETE") for status in (301, 302, 307, 308)),
    ],
)
def test_the_method_after_a_redirect(method: str, status: int, expected: str) -> None:
    body = None if method in ("GET", "HEAD") else "text"
    first = asked("https://allowed.example/a/b", method, body, **{"content-type": "text/plain"})
    following = redirected(ACCESS, first, status, "../c")
    assert str(following.url) == "https://allowed.example/c"
    assert following.method == expected
    assert following.body == (first.body if expected == method else None)
    assert ("content-type" in following.headers) is (following.body is not None)


SECRETS = {"authorization": "Bearer x", "x-api-key": "x", "accept": "text/html", "content-type": "text/plain"}


@pytest.mark.parametrize(
    ("location", "keeps_secrets"),
    [
        ("/other", True),
        ("//allowed.example/other", True),
        ("https://allowed.example:443/other", True),
        ("https://tls.example/", False),
        ("https://a.sub.example/", False),
        ("https://ported.example:8443/", False),
    ],
)
def test_what_was_meant_for_one_origin_goes_to_no_other(location: str, *, keeps_secrets: bool) -> None:
    first = allowed_request(ACCESS, "POST", "https://allowed.example/", SECRETS, "text")
    kept = redirected(ACCESS, first, 307, location).headers
    assert set(kept) == set(SECRETS if keeps_secrets else {"accept", "content-type"})


def test_secrets_do_not_go_along_where_only_the_scheme_changes() -> None:
    first = allowed_request(ACCESS, "GET", "http://allowed.example/", SECRETS, None)
    assert set(redirected(ACCESS, first, 302, "https://allowed.example/").headers) == {"accept"}


def test_no_redirect_leads_from_https_to_http() -> None:
    with pytest.raises(RequestRefused, match=r"^it leads from https to http$"):
        redirected(ACCESS, asked("https://allowed.example/"), 302, "http://allowed.example/")


@given(texts, st.sampled_from(["", "//", "http://", "https://", "/", "?", "//allowed.example"]))
def test_no_location_is_an_error_of_another_kind(text: str, start: str) -> None:
    first = asked("https://allowed.example/", "POST", "text")
    try:
        following = redirected(ACCESS, first, 302, start + text)
    except RequestRefused:
        return
    assert following.url.scheme == "https"


@given(st.dictionaries(texts, texts, max_size=3))
def test_no_header_has_a_line_break(headers: dict[str, str]) -> None:
    try:
        request = allowed_request(ACCESS, "GET", "https://allowed.example/", headers, None)
    except RequestRefused:
        return
    assert not any("\r" in text or "\n" in text for pair in request.headers.items() for text in pair)
