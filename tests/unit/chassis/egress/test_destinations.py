"""URLs as destinations: read in one way, or refused."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.egress.destinations import Destination, DestinationRefused, InternalTargets

REFUSED = {
    "no URL": ["", "example.com", "//example.com", "http:example.com", "http:/example.com", "http://", "http:///x"],
    "another scheme": ["ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "ws://example.com"],
    "userinfo": ["http://user@example.com/", "http://example.com:80@127.0.0.1/", "http://a:b@example.com/"],
    "a backslash": ["http://example.com\\@127.0.0.1/", "http:\\\\example.com/"],
    "a space or control character": ["http://exa mple.com/", "http://example.com/\r\nX: y", "http://example.com/\t"],
    "no ASCII": ["http://ex\u00e4mple.com/", "http://\u2460\u2461\u2466.0.0.1/", "http://example\u3002com/"],
    "percent signs in the host": ["http://%31%32%37.0.0.1/", "http://example%2ecom/"],
    "a decimal spelling": ["http://2130706433/", "http://127.1/", "http://127.0.1/", "http://1/"],
    "an octal spelling": ["http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.01/"],
    "a hexadecimal spelling": ["http://0x7f000001/", "http://0x7f.0.0.1/", "http://127.0.0.0x1/", "http://0X7F.1/"],
    "too many or too large numbers": ["http://127.0.0.1.1/", "http://256.0.0.1/", "http://1.2.3.4.5/"],
    "a dot behind an address": ["http://127.0.0.1./", "http://1.1.1.1./"],
    "dots that are no root": ["http://example.com../", "http://.example.com/", "http://a..b/", "http://./"],
    "a label that is none": ["http://-a.com/", "http://a-.com/", f"http://{'a' * 64}.com/", "http://a$.com/"],
    "a zone": ["http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/"],
    "a broken IPv6 address": ["http://[::1/", "http://[:::]/", "http://[1::2::3]/", "http://::1/"],
    "a port": ["http://example.com:0/", "http://example.com:22/", "http://example.com:25/",
               "http://example.com:65536/", "http://example.com:99999/", "http://example.com:+80/"],
    "a length": [f"http://example.com/{'x' * 2048}"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "number", "url"),
    [(kind, number, url) for kind, urls in REFUSED.items() for number, url in enumerate(urls)],
)
def test_an_ambiguous_url_is_refused(kind: str, number: int, url: str) -> None:
    with pytest.raises(DestinationRefused):
        Destination.of(url)


@pytest.mark.parametrize(
    ("url", "authority", "port", "target"),
    [
        ("http://Example.COM", "example.com", 80, "/"),
        ("HTTPS://example.com:443/a?b=c#d", "example.com", 443, "/a?b=c"),
        ("http://example.com.:8080?x=1", "example.com:8080", 8080, "/?x=1"),
        ("http://xn--exmple-cua.com/%C3%A4", "xn--exmple-cua.com", 80, "/%C3%A4"),
        ("http://a_b.example-1.com/", "a_b.example-1.com", 80, "/"),
        ("http://1.1.1.1:443/", "1.1.1.1:443", 443, "/"),
        ("https://[2606:4700:0:0::1111]:8443/", "[2606:4700::1111]:8443", 8443, "/"),
        ("http://example.com/@user:x@127.0.0.1/", "example.com", 80, "/@user:x@127.0.0.1/"),
        ("http://example.com#@127.0.0.1/", "example.com", 80, "/"),
    ],
)
def test_a_destination_is_read_as_it_is_meant(url: str, authority: str, port: int, target: str) -> None:
    destination = Destination.of(url)
    assert (destination.authority, destination.port, destination.target) == (authority, port, target)


@pytest.mark.parametrize(
    ("targets", "address", "port", "allowed"),
    [
        ("", "10.0.0.1", 80, False),
        ("10.0.0.1", "10.0.0.1", 8080, True),
        ("10.0.0.1:8080", "10.0.0.1", 8080, True),
        ("10.0.0.1:8080", "10.0.0.1", 8081, False),
        ("10.0.0.1:8080", "10.0.0.2", 8080, False),
        ("192.168.0.0/16, 10.1.0.0/16", "10.1.255.255", 80, True),
        ("[fd00::1]:9000", "fd00::1", 9000, True),
        ("[fd00::1]", "fd00::1", 9000, True),
        ("fd00::/8", "fd12::1", 9000, True),
        ("fd00::/8", "10.0.0.1", 9000, False),
        ("127.0.0.0/8", "::ffff:127.0.0.1", 80, False),
    ],
)
def test_internal_targets_are_open_as_far_as_they_are_named(
    targets: str, address: str, port: int, allowed: bool
) -> None:
    host = f"[{address}]" if ":" in address else address
    destination = Destination.of(f"http://{host}:{port}/")
    required = InternalTargets.parse(targets)
    if allowed:
        required.require((ip_address(address),), destination)
        return
    with pytest.raises(DestinationRefused, match="not public") as refused:
        required.require((ip_address("1.1.1.1"), ip_address(address)), destination)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:80", "10.0.0.0/8:80", "10.0.0.1:0", "10.0.0.1/8", "*"]
)
def test_an_internal_target_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|host bits|no port"):
        InternalTargets.parse(text)


TRICKY = st.text(st.sampled_from("abx019.:/@?#[]\\%-_ \t\u2460"), max_size=12)


@given(st.sampled_from(["http://", "https://", "HTTP://", "http:"]), TRICKY, TRICKY)
@example("http://", "a.b:80", "/@c.d")
def test_other_readers_of_a_url_that_is_taken_mean_the_same_server(scheme: str, host: str, rest: str) -> None:
    url = scheme + host + rest
    try:
        destination = Destination.of(url)
    except DestinationRefused:
        return
    for read in (urlsplit(url), httpx.URL(url)):
        port = read.port or {"http": 80, "https": 443}[read.scheme]
        name = (read.hostname if isinstance(read, SplitResult) else read.host) or ""
        assert (name.removesuffix("."), port) == (destination.host, destination.port)
