"""The tool `http_request` on real sockets: where it connects to, what it keeps, what it says of failures."""

import asyncio
import gzip
import json
import socket
import ssl
import time
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trustme

from holdfast.domain.agents import AgentSpec, HttpAccess
from holdfast.domain.tools import Declaration, Effect, Idempotency, terms
from holdfast.tools import http as http_tool
from holdfast.tools.http import http_request_tool
from holdfast.tools.http_exchange import MAX_BODY_BYTES, Exchanger
from holdfast.tools.http_network import resolve
from holdfast.tools.http_rules import Request, RequestRefused
from holdfast.tools.registry import Tool
from holdfast.tools.run import Outcome, Raised, Returned, TimedOut, ToolRunner, Unknown
from tests.unit.builders import agent
from tests.unit.http_servers import Answer, Internet, Server, death, endless, http, moved, said, serving, silence

PUBLIC = "93.184.216.34"
METADATA = "169.254.169.254"


def allowing(*entries: str) -> AgentSpec:
    return agent(http=HttpAccess(allow=entries))


async def outcome(
    allow: list[str], method: str, url: str, exchanger: Exchanger | None = None, **arguments: Any
) -> Outcome:
    tool = http_request_tool(exchanger).bound_to(allowing(*allow))
    checked = tool.check({"method": method, "url": url, **arguments})
    return await ToolRunner().run(tool, checked, "call_1")


async def asked(
    allow: list[str], method: str, url: str, exchanger: Exchanger | None = None, **arguments: Any
) -> dict[str, Any]:
    """What the model is shown of an answer."""
    came = await outcome(allow, method, url, exchanger, **arguments)
    assert isinstance(came, Returned), came
    shown: dict[str, Any] = json.loads(came.result)
    return shown


async def answered(*answers: Answer, method: str = "GET", path: str = "/", **arguments: Any) -> dict[str, Any]:
    """The same of a server of its own."""
    async with serving(*answers) as server:
        return await asked([server.url], method, server.url + path, **arguments)


def internet(server: Server, host: str = "api.example.com", *, port: int = 80) -> Internet:
    """One in which `host` is this server, at a public address."""
    return Internet({host: [[PUBLIC]]}, {(PUBLIC, port): server.port})


def on(net: Internet, tls: ssl.SSLContext | None = None) -> Exchanger:
    return Exchanger(net.resolve, net, tls)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a call half a second altogether."""
    monkeypatch.setattr(http_tool, "TOTAL_S", 0.5)


def zeros_packed(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(b"0" * 2**20) for _ in range(megabytes)) + packer.flush()


# The tool


def test_it_is_a_tool_that_nothing_is_promised_of() -> None:
    tool = http_request_tool()
    assert (tool.name, tool.is_async, tool.takes_key) == ("http_request", True, False)
    found = terms(tool.declaration, Declaration(), takes_key=tool.takes_key)
    assert (found.effect, found.idempotency) == (Effect.IRREVERSIBLE, Idempotency.NONE)
    assert tool.schema["required"] == ["method", "url"]


def test_an_agents_tool_is_the_same_one_and_names_its_hosts() -> None:
    tool = http_request_tool()
    bound = tool.bound_to(allowing("api.example.com", "*.example.org"))
    assert bound.schema_digest == tool.schema_digest
    assert bound.description.endswith(" Hosts that may be asked: api.example.com, *.example.org.")
    assert tool.bound_to(agent()).description.endswith(" Hosts that may be asked: none.")


@pytest.mark.parametrize("tool", [http_request_tool(), http_request_tool().bound_to(agent())], ids=["unbound", "bound"])
async def test_without_a_list_each_call_is_refused(tool: Tool) -> None:
    came = await ToolRunner().run(tool, tool.check({"method": "GET", "url": "https://api.example.com/"}), "call_1")
    assert came == Raised("RequestRefused: this agent may ask no host: its http.allow is empty")


async def test_a_request_and_its_answer() -> None:
    answer = http(201, b'{"id": 7}', content_type="application/json", set_cookie="session=1", x_ratelimit_left="3")
    async with serving(answer) as server:
        shown = await asked(
            [server.url], "POST", f"{server.url}/orders?dry=1#top", headers={"X-Trace": "abc"}, body="caf\u00e9"
        )
    assert shown == {
        "status": 201,
        "url": f"{server.url}/orders?dry=1#top",
        "headers": {"content-length": "9", "content-type": "application/json", "x-ratelimit-left": "3"},
        "body": '{"id": 7}',
    }
    assert list(shown)[-1] == "body"
    (request,) = server.requests
    assert request.line == "POST /orders?dry=1 HTTP/1.1"
    assert request.body == "caf\u00e9".encode()
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "*/*",
        "user-agent": "holdfast",
        "x-trace": "abc",
        "accept-encoding": "identity",
        "connection": "close",
        "content-length": "5",
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method(method: str) -> None:
    async with serving(said(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        shown = await asked([server.url], method, server.url)
    assert (shown["status"], shown["body"]) == (204, "")
    assert server.lines == [f"{method} / HTTP/1.1"]
    assert ("content-length" in server.requests[0].headers) is (method not in ("GET", "HEAD"))


async def test_no_variable_of_the_environment_sends_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(http(200, b"a proxy")) as proxy, serving(http(200, b"the server")) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        assert (await asked([server.url], "GET", server.url))["body"] == "the server"
    assert proxy.requests == []


# Where it connects to


async def test_it_connects_to_the_checked_address_and_speaks_of_the_name(authority: trustme.CA) -> None:
    async with serving(http(200, b"hello"), tls=certified(authority, "api.example.com")) as server:
        net = internet(server, port=443)
        shown = await asked(["api.example.com"], "GET", "https://api.example.com/", on(net, trusting(authority)))
    assert shown["body"] == "hello"
    assert (net.asked, net.connected) == (["api.example.com"], [(PUBLIC, 443)])
    assert server.names == ["api.example.com"]
    assert server.requests[0].headers["host"] == "api.example.com"


async def test_a_certificate_of_another_name_is_refused_before_anything_is_sent(authority: trustme.CA) -> None:
    async with serving(http(200), tls=certified(authority, "evil.example")) as server:
        exchanger = on(internet(server, port=443), trusting(authority))
        came = await outcome(["api.example.com"], "POST", "https://api.example.com/", exchanger)
    assert isinstance(came, Raised)
    assert "nothing was sent" in came.error
    assert server.requests == []


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    async with serving(http(200), tls=certified(authority, "api.example.com")) as server:
        exchanger = on(internet(server, port=443))
        came = await outcome(["api.example.com"], "POST", "https://api.example.com/", exchanger)
    assert isinstance(came, Raised)
    assert "nothing was sent" in came.error
    assert server.requests == []


async def test_dns_that_changes_its_answer_changes_nothing() -> None:
    async with serving(http(200, b"public")) as server:
        net = Internet({"api.example.com": [[PUBLIC], ["127.0.0.1"]]}, {(PUBLIC, 80): server.port})
        shown = await asked(["api.example.com"], "GET", "http://api.example.com/", on(net))
        assert shown["body"] == "public"
        assert (net.asked, net.connected) == (["api.example.com"], [(PUBLIC, 80)])
        again = await outcome(["api.example.com"], "GET", "http://api.example.com/", on(net))
    assert again == Raised("RequestRefused: the host 'api.example.com' has an address that is not public")
    assert net.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "addresses",
    [
        [METADATA],
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC, "8.8.8.8", "::ffff:169.254.169.254"],
        ["fe80::1%1"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:a9fe:a9fe::"],
        ["0.0.0.0"],
    ],
)
async def test_one_address_that_is_not_public_is_enough(addresses: list[str]) -> None:
    net = Internet({"api.example.com": [addresses]}, {})
    came = await outcome(["api.example.com"], "POST", "http://api.example.com/", on(net))
    assert came == Raised("RequestRefused: the host 'api.example.com' has an address that is not public")
    assert net.connected == []


async def test_permission_for_a_private_address_is_for_that_one_alone() -> None:
    net = Internet({"127.0.0.1": [["127.0.0.1", "127.0.0.2"]]}, {})
    came = await outcome(["http://127.0.0.1:8080"], "GET", "http://127.0.0.1:8080/", on(net))
    assert isinstance(came, Raised)
    assert net.connected == []


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async with serving(http(200, b"hello")) as server:
        net = Internet({"api.example.com": [["2606:4700::1111", PUBLIC]]}, {(PUBLIC, 80): server.port})
        assert (await asked(["api.example.com"], "POST", "http://api.example.com/", on(net)))["body"] == "hello"
    assert net.connected == [("2606:4700::1111", 80), (PUBLIC, 80)]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "2130706433", "017700000001", "0x7f000001", "0x7f.1"),
        *("2852039166", "0xa9fea9fe", "169.254.43518", "localhost"),
        *("[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]"),
    ],
)
async def test_however_an_address_is_written_it_is_seen_where_it_is_resolved(host: str) -> None:
    # Such a host gets through no list. If it did: what the operating system takes it for is what is checked.
    net = Internet({}, {})
    request = Request("POST", httpx.URL(f"http://{host}/"), {}, None, named_address=None)
    with pytest.raises(RequestRefused):
        await Exchanger(network=net).exchange(request, asyncio.get_running_loop().time() + 10)
    assert net.connected == []


@pytest.mark.parametrize(
    "host",
    [
        *("0177.0.0.1", "017700000001", "0x7f.0x0.0x0.0x1"),
        *("\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\uff0e0\uff611"),
    ],
    ids=ascii,
)
async def test_what_httpx_takes_for_no_host_is_one_for_the_operating_system(host: str) -> None:
    assert await resolve(host, 80) == ["127.0.0.1"]


# Redirects


async def test_a_redirect_inside_is_not_followed() -> None:
    for inside in (
        f"http://{METADATA}/latest/meta-data/",
        "http://127.0.0.1:22/",
        "http://localhost/",
        "file:///etc/passwd",
    ):
        async with serving(moved(inside)) as server:
            net = internet(server)
            shown = await asked(["api.example.com"], "GET", "http://api.example.com/", on(net))
        assert shown["status"] == 302
        assert shown["note"].startswith("the redirect was not followed: ")
        assert (net.asked, net.connected) == (["api.example.com"], [(PUBLIC, 80)])


async def test_a_redirect_to_an_allowed_name_that_leads_inside_is_not_followed() -> None:
    async with serving(moved("http://b.example.com/")) as server:
        net = internet(server)
        net.names["b.example.com"] = [[METADATA]]
        shown = await asked(["*.example.com"], "GET", "http://api.example.com/", on(net))
    assert shown["note"] == (
        "the redirect was not followed: the host 'b.example.com' has an address that is not public"
    )
    assert net.connected == [(PUBLIC, 80)]


async def test_three_redirects_are_followed_and_no_fourth() -> None:
    hops = [moved(f"/{number}") for number in range(1, 5)]
    async with serving(*hops[:3], http(200, b"arrived")) as server:
        shown = await asked([server.url], "GET", server.url)
    assert (shown["status"], shown["url"], shown["body"]) == (200, f"{server.url}/3", "arrived")
    async with serving(*hops) as server:
        shown = await asked([server.url], "GET", server.url)
    assert (shown["status"], shown["url"]) == (302, f"{server.url}/3")
    assert shown["note"] == "not followed any further, after 3 redirects"
    assert len(server.requests) == 4


async def test_no_redirect_leads_out_of_tls(authority: trustme.CA) -> None:
    async with serving(moved("http://api.example.com/"), tls=certified(authority, "api.example.com")) as server:
        net = internet(server, port=443)
        shown = await asked(["api.example.com"], "GET", "https://api.example.com/", on(net, trusting(authority)))
    assert shown["note"] == "the redirect was not followed: it leads from https to http"
    assert net.connected == [(PUBLIC, 443)]


async def test_secrets_stay_with_the_host_that_they_were_meant_for() -> None:
    secrets = {"Authorization": "Bearer x", "X-Api-Key": "x", "Accept": "text/plain"}
    async with serving(http(200)) as other, serving(moved("/here"), moved(f"{other.url}/there")) as first:
        await asked([first.url, other.url], "GET", first.url, headers=secrets)
    assert [request.headers.get("authorization") for request in first.requests] == ["Bearer x", "Bearer x"]
    assert {"authorization", "x-api-key"}.isdisjoint(other.requests[0].headers)
    assert other.requests[0].headers["accept"] == "text/plain"


async def test_a_moved_post_becomes_a_get_and_a_temporary_one_stays() -> None:
    async with serving(moved("/a", 307), moved("/b", 303), http(200)) as server:
        await asked([server.url], "POST", server.url, body="text")
    assert server.lines == ["POST / HTTP/1.1", "POST /a HTTP/1.1", "GET /b HTTP/1.1"]
    assert [request.body for request in server.requests] == [b"text", b"text", b""]


async def test_a_redirect_without_a_location_is_an_answer() -> None:
    assert (await answered(http(302, b"nowhere")))["body"] == "nowhere"


# Bodies

ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"
GZIPPED = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n"


async def test_a_body_without_end_is_cut() -> None:
    shown = await answered(endless(ENDLESS, b"x" * 65536))
    assert shown["body"] == "x" * MAX_BODY_BYTES
    assert shown["note"] == f"the body is longer; cut at {MAX_BODY_BYTES} bytes"


async def test_a_body_of_exactly_the_limit_is_whole() -> None:
    shown = await answered(http(200, b"x" * MAX_BODY_BYTES))
    assert len(shown["body"]) == MAX_BODY_BYTES
    assert "note" not in shown


async def test_a_small_body_that_unpacks_to_a_thousand_times_its_size_is_cut() -> None:
    bomb = zeros_packed(megabytes=256)
    tracemalloc.start()
    try:
        shown = await answered(said(GZIPPED, bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shown["body"] == "0" * MAX_BODY_BYTES
    assert "cut at" in shown["note"]
    assert peak < 16 * 2**20


async def test_a_packed_body_is_unpacked_and_one_that_never_yields_anything_is_cut() -> None:
    assert (await answered(said(GZIPPED, gzip.compress(b"hello"))))["body"] == "hello"
    header, empty_block = gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff"
    shown = await answered(endless(GZIPPED + header, empty_block * 10_000))
    assert shown["body"] == ""
    assert "cut at" in shown["note"]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("br", "can't be read here"), ("gzip, gzip", "can't be read here"), ("gzip", "the body broke off: ")],
)
async def test_a_body_that_can_not_be_unpacked(encoding: str, expected: str) -> None:
    shown = await answered(http(200, b"not packed", content_encoding=encoding))
    assert (shown["status"], shown["body"]) == (200, "")
    assert expected in shown["note"]


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/plain", "caf\u00e9".encode(), "caf\u00e9"),
        ("text/plain; charset=ISO-8859-1", b"caf\xe9", "caf\u00e9"),
        ("text/plain; charset=punycode", "caf\u00e9".encode(), "caf\u00e9"),
        ("text/plain; charset=zip", b"x", "x"),
        ("text/plain", b"caf\xe9", "caf\ufffd"),
    ],
)
async def test_the_text_of_a_body(content_type: str, body: bytes, expected: str) -> None:
    assert (await answered(http(200, body, content_type=content_type)))["body"] == expected


async def test_a_body_that_is_no_text_is_left_out() -> None:
    shown = await answered(http(200, b"\x89PNG\x00\x01", content_type="image/png"))
    assert (shown["body"], shown["note"]) == ("", "the body is not text, and is left out")


async def test_headers_without_end_are_no_answer() -> None:
    async with serving(endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000)) as server:
        came = await outcome([server.url], "GET", server.url)
    assert isinstance(came, Raised)


async def test_a_long_header_is_cut() -> None:
    assert len((await answered(http(200, etag="x" * 5000)))["headers"]["etag"]) == 1000


# Failures: what may have happened, and what can't have


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connection_is_a_failure_without_effect(method: str) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    came = await outcome([origin], method, origin)
    assert isinstance(came, Raised)
    assert came.error.startswith(f"RequestFailed: {origin[7:]} was not reached, and nothing was sent: ")


async def test_a_name_that_can_not_be_resolved_is_a_failure_without_effect() -> None:
    for net in (Internet({}, {}), Internet({"api.example.com": [[]]}, {}), Internet({"api.example.com": [["x"]]}, {})):
        came = await outcome(["api.example.com"], "POST", "http://api.example.com/", on(net))
        assert isinstance(came, Raised)
        assert came.error.startswith("RequestFailed: the host 'api.example.com' ")


async def test_a_tls_handshake_that_fails_is_a_failure_without_effect() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        net = Internet({"api.example.com": [[PUBLIC]]}, {(PUBLIC, 443): server.sockets[0].getsockname()[1]})
        came = await outcome(["api.example.com"], "POST", "https://api.example.com/", on(net))
    assert isinstance(came, Raised)
    assert "nothing was sent" in came.error


@pytest.mark.parametrize(
    "answer",
    [death, said(b""), said(b"HTTP/1.1 2"), said(b"SSH-2.0-OpenSSH_9.6\r\n")],
    ids=["killed", "closed", "torn", "ssh"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_server_that_dies_after_reading_leaves_the_outcome_unknown(method: str, answer: Answer) -> None:
    async with serving(answer) as server:
        came = await outcome([server.url], method, server.url, body="text")
    assert isinstance(came, Unknown)
    assert came.reason.startswith(f"The {method} request was sent to {server.url[7:]}, and no answer came (")
    assert len(server.requests) == 1


async def test_a_server_that_dies_behind_tls_leaves_the_outcome_unknown(authority: trustme.CA) -> None:
    async with serving(death, tls=certified(authority, "api.example.com")) as server:
        exchanger = on(internet(server, port=443), trusting(authority))
        came = await outcome(["api.example.com"], "POST", "https://api.example.com/", exchanger, body="text")
    assert isinstance(came, Unknown)
    assert [request.body for request in server.requests] == [b"text"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_that_gets_no_answer_is_a_failure(method: str) -> None:
    async with serving(death) as server:
        came = await outcome([server.url], method, server.url)
    assert isinstance(came, Raised)
    assert came.error.startswith(f"RequestFailed: {server.url[7:]} did not answer: ")
    assert len(server.requests) == 1


@pytest.mark.parametrize(("method", "expected"), [("POST", Unknown), ("GET", Raised)])
async def test_a_server_that_says_nothing(method: str, expected: type[Outcome], brief: None) -> None:
    async with serving(silence) as server:
        came = await outcome([server.url], method, server.url)
    assert isinstance(came, expected)
    assert "no answer within 30 s" in str(came)


async def test_a_server_that_never_ends_its_handshake(brief: None, authority: trustme.CA) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as server:
        net = Internet({"api.example.com": [[PUBLIC]]}, {(PUBLIC, 443): server.sockets[0].getsockname()[1]})
        came = await outcome(["api.example.com"], "POST", "https://api.example.com/", on(net, trusting(authority)))
    assert isinstance(came, Raised)
    assert "nothing was sent: no answer within 30 s" in came.error


async def test_an_answer_that_breaks_off_is_an_answer(brief: None) -> None:
    torn = said(b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n", b"half")
    slow = endless(b"HTTP/1.1 201 Created\r\n\r\n", b".", pause_s=0.05)
    for answer in (torn, slow):
        shown = await answered(answer, method="POST")
        assert shown["status"] == 201
        assert shown["body"].startswith(("half", ".."))
        assert shown["note"].startswith("the body broke off: ")


async def test_a_post_that_was_done_stays_done_though_what_it_leads_to_fails() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with serving(moved(dead, 303)) as server:
        shown = await asked([server.url, dead], "POST", server.url)
    assert shown["status"] == 303
    assert shown["note"].startswith("the redirect was not followed: ")
    async with serving(moved("/done", 303), death) as server:
        shown = await asked([server.url], "POST", server.url)
    assert (shown["status"], len(server.requests)) == (303, 2)


async def test_a_post_that_is_sent_on_and_not_answered_is_unknown() -> None:
    async with serving(moved("/next", 307), death) as server:
        came = await outcome([server.url], "POST", server.url, body="text")
    assert isinstance(came, Unknown)
    assert len(server.requests) == 2


async def test_the_time_is_for_all_redirects_together(brief: None) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await moved("/again")(writer)

    started = time.monotonic()
    shown = await answered(slow)
    assert shown["status"] == 302
    assert time.monotonic() - started < 5


async def test_a_call_that_is_cut_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    async with await asyncio.start_server(watch, "127.0.0.1", 0) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tool = http_request_tool().bound_to(allowing(origin))
        brief_tool = replace(tool, declaration=replace(tool.declaration, timeout_s=0.2))
        came = await ToolRunner().run(brief_tool, {"method": "POST", "url": origin, "body": None}, "call_1")
        assert came == TimedOut(0.2)
        await asyncio.wait_for(closed.wait(), 10)
