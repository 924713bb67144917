"""Each head has one meaning; one that could have two is refused."""

from __future__ import annotations

import pytest

from chassis.http1.head import RequestHead, parse
from chassis.http1.refusals import RequestRefused


def head(*lines: bytes) -> RequestHead:
    return parse(b"\r\n".join([*lines, b"", b""]))


def refused(*lines: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        head(*lines)
    return caught.value


def test_a_request_keeps_its_fields_in_order_with_names_in_lower_case() -> None:
    found = head(b"GET /a?b=%20 HTTP/1.1", b"HOST: x", b"X-One:  1\t", b"x-one:2", b"Accept: \xe9")
    assert (found.method, found.target, found.version) == ("GET", b"/a?b=%20", "1.1")
    assert found.fields == [(b"host", b"x"), (b"x-one", b"1"), (b"x-one", b"2"), (b"accept", b"\xe9")]
    assert (found.length, found.keep_alive, found.expects_continue) == (0, True, False)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET /\t HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\xe9 HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /#a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"GET ftp://x/ HTTP/1.1", 400),
        (b"GET http:///a HTTP/1.1", 400),
        (b"GET http://a@b/ HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"G\xe9T / HTTP/1.1", 400),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"FOO / HTTP/1.1", 501),
        (b"get / HTTP/1.1", 501),
        (b"CONNECT x:443 HTTP/1.1", 501),
        (b"GET /" + b"x" * 8192 + b" HTTP/1.1", 414),
    ],
)
def test_a_wrong_request_line_is_refused_by_name(line: bytes, status: int) -> None:
    assert refused(line, b"Host: x").status == status


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://x/a?b", b"/a?b"),
        (b"HTTPS://x:443/a", b"/a"),
        (b"http://x", b"/"),
        (b"http://x?b", b"/?b"),
        (b"//x/a", b"//x/a"),
    ],
)
def test_a_target_in_absolute_form_is_its_path(target: bytes, expected: bytes) -> None:
    assert head(b"GET " + target + b" HTTP/1.1", b"Host: x").target == expected


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"a b", b"a/b", b"a@b", b"\xff", b"[::1", b"a:b", b"a:99999", b"a:1:2", b"a,b c", b"a?b"),
        *(b"a#", b"a" * 256, b"[" + b":" * 46 + b"]"),
    ],
)
def test_an_invalid_host_is_refused(host: bytes) -> None:
    assert refused(b"GET / HTTP/1.1", b"Host: " + host).reason == "host"


def test_a_request_of_http_1_1_has_exactly_one_host() -> None:
    assert refused(b"GET / HTTP/1.1").reason == "host"
    assert refused(b"GET / HTTP/1.1", b"Host: x", b"Host: x").reason == "host"
    assert head(b"GET / HTTP/1.0").keep_alive is False


@pytest.mark.parametrize(
    "line",
    [
        b"a : b",
        b" a: b",
        b"\ta: b",
        b": b",
        b"a",
        b"a\x00: b",
        b"a: b\x00",
        b"a: b\nc: d",
        b"a: b\rc: d",
        b"a: b\r",
        b"a: \x7f",
        b"a: \x1b[0m",
        b"\xe9: b",
        b"a b: c",
        b"Content-Length : 5",
        b"Host",
    ],
)
def test_a_line_that_could_be_read_in_two_ways_is_refused(line: bytes) -> None:
    assert refused(b"GET / HTTP/1.1", b"Host: x", line, b"z: 1").status == 400
    assert refused(b"GET / HTTP/1.1", b"Host: x", b"z: 1", line).status == 400


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Content-Length: 5, 5"], 400),
        ([b"Content-Length: +5"], 400),
        ([b"Content-Length: -5"], 400),
        ([b"Content-Length: 0x5"], 400),
        ([b"Content-Length: 5 5"], 400),
        ([b"Content-Length: 1_0"], 400),
        ([b"Content-Length: "], 400),
        ([b"Content-Length: \xb2"], 400),
        ([b"Content-Length: " + b"0" * 5000 + b"2"], 400),
        ([b"Content-Length: " + b"9" * 20], 400),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked, chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding:"], 400),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Transfer-Encoding: chunked, gzip"], 501),
        ([b"Transfer-Encoding: identity"], 501),
        ([b"Transfer-Encoding: xchunked"], 501),
        ([b'Transfer-Encoding: chunked;a="b"'], 501),
        ([b"Expect: 200-ok"], 417),
    ],
)
def test_a_body_whose_end_is_not_clear_is_refused(lines: list[bytes], status: int) -> None:
    assert refused(b"POST / HTTP/1.1", b"Host: x", *lines).status == status


def test_chunks_need_http_1_1() -> None:
    assert refused(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked").reason == "framing"
    assert head(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: Chunked").length is None
    assert head(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 005").length == 5


def test_100_fields_are_taken_and_101_are_not() -> None:
    fields = [b"a: %d" % number for number in range(99)]
    assert len(head(b"GET / HTTP/1.1", b"Host: x", *fields).fields) == 100
    assert refused(b"GET / HTTP/1.1", b"Host: x", *fields, b"b: 1").status == 431


def test_a_continue_is_expected_where_a_body_follows() -> None:
    expect = b"Expect: 100-Continue"
    assert head(b"POST / HTTP/1.1", b"Host: x", expect, b"Content-Length: 1").expects_continue
    assert not head(b"POST / HTTP/1.1", b"Host: x", expect).expects_continue
    assert not head(b"POST / HTTP/1.0", expect, b"Content-Length: 1").expects_continue


UPGRADE = (b"Host: x", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket")
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"


def test_an_upgrade_to_websockets_is_found_and_others_are_passed_over() -> None:
    assert head(b"GET / HTTP/1.1", *UPGRADE, KEY, VERSION).is_websocket
    h2c = head(b"GET / HTTP/1.1", b"Host: x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")
    assert not h2c.is_websocket
    assert not head(b"GET / HTTP/1.1", b"Host: x", b"Upgrade: websocket").is_websocket


@pytest.mark.parametrize(
    ("line", "lines", "status"),
    [
        (b"POST / HTTP/1.1", [KEY, VERSION], 400),
        (b"GET / HTTP/1.1", [KEY, VERSION, b"Content-Length: 5"], 400),
        (b"GET / HTTP/1.1", [KEY, VERSION, b"Transfer-Encoding: chunked"], 400),
        (b"GET / HTTP/1.0", [KEY, VERSION], 400),
        (b"GET / HTTP/1.1", [VERSION], 400),
        (b"GET / HTTP/1.1", [KEY, KEY, VERSION], 400),
        (b"GET / HTTP/1.1", [b"Sec-WebSocket-Key: x", VERSION], 400),
        (b"GET / HTTP/1.1", [KEY], 426),
        (b"GET / HTTP/1.1", [KEY, b"Sec-WebSocket-Version: 8"], 426),
    ],
)
def test_an_upgrade_that_cannot_be_is_refused(line: bytes, lines: list[bytes], status: int) -> None:
    assert refused(line, *UPGRADE, *lines).status == status
