"""The head of a request: strict by RFC 9112, so that no proxy in front reads it differently."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache

from chassis.http1.limits import FIELDS, LENGTH_DIGITS, REQUEST_LINE_BYTES
from chassis.http1.refusals import (
    ExpectationFailed,
    HeadTooLarge,
    NotImplementedHere,
    RequestRefused,
    TargetTooLong,
    UpgradeNotPossible,
    VersionNotSupported,
)

Fields = list[tuple[bytes, bytes]]

_CRLF = b"\r\n"
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f-\xff]+) HTTP/(\d\.\d)")
_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
# No name in the DNS is longer.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9\-._~!$&'()*+,;=%]{1,255})(?::(\d{0,5}))?")
_LENGTH = re.compile(rb"\d{1,%d}" % LENGTH_DIGITS)
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Field values may hold visible characters, spaces, tabs and octets above ASCII, which mean nothing.
_VALUE = bytes(octet for octet in range(256) if octet in b"\t" or (octet >= 0x20 and octet != 0x7F))
# The fields that this server itself understands.
_OWN = frozenset(
    [
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    ]
)
_KEY_BYTES = 16
# The usual names as clients write them: looking one up costs less than checking it and folding its case.
_USUAL = {
    spelling + b":": name
    for name in (
        *_OWN,
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"content-type",
        b"cookie",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"origin",
        b"referer",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    )
    for spelling in (name, name.title())
}


@dataclass(slots=True)
class RequestHead:
    """A request without its body.

    `target` is in origin form (or `*`); `length` is the number of bytes of the body, None where chunks
    carry it.
    """

    method: str
    target: bytes
    version: str
    fields: Fields
    length: int | None
    keep_alive: bool
    expects_continue: bool
    is_websocket: bool


def parse_request_line(line: bytes) -> tuple[str, bytes, str]:
    """Return method, target and version. Raises `RequestRefused`."""
    if len(line) > REQUEST_LINE_BYTES:
        raise TargetTooLong("request_line", f"The request line may have at most {REQUEST_LINE_BYTES} bytes.")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RequestRefused("malformed", "The first line is not a request line of HTTP/1.1.")
    name, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise VersionNotSupported("version", "This server speaks HTTP/1.1 and HTTP/1.0.")
    method = _METHODS.get(name)
    if method is None:
        raise NotImplementedHere("method", f"The method must be one of {', '.join(_METHODS.values())}.")
    return method, target, version.decode()


def parse(head: bytes) -> RequestHead:
    """Parse a head with its closing empty line. Raises `RequestRefused`."""
    line, _, rest = head[:-4].partition(_CRLF)
    method, target, version = parse_request_line(line)
    fields, own = _parse_fields(rest)
    target = _origin_form(target, method, own, is_host_needed=version == "1.1")
    length = _length(own, version)
    connection = _tokens(own[b"connection"]) if b"connection" in own else ()
    is_websocket = b"upgrade" in connection and _tokens(own.get(b"upgrade", [])) == [b"websocket"]
    if is_websocket:
        _require_websocket(method, version, length, own)
    expects_continue = b"expect" in own
    if expects_continue and [value.lower() for value in own[b"expect"]] != [b"100-continue"]:
        raise ExpectationFailed("expectation", "The only expectation that can be met is 100-continue.")
    return RequestHead(
        method,
        target,
        version,
        fields,
        length,
        keep_alive=version == "1.1" and b"close" not in connection,
        expects_continue=expects_continue and version == "1.1" and length != 0,
        is_websocket=is_websocket,
    )


def _parse_fields(block: bytes) -> tuple[Fields, dict[bytes, list[bytes]]]:
    """Return all fields, with names in lower case, and the values of those that this server understands."""
    lines = block.split(_CRLF) if block else []
    if len(lines) > FIELDS:
        raise HeadTooLarge(
            "header_count", f"A request may have at most {FIELDS} header fields; it has {len(lines)}."
        )
    # Without its valid characters, only the ends of its lines may be left of the block: this one check finds
    # bare CR and LF, NUL and other control characters.
    if lines and block.translate(None, _VALUE) != _CRLF * (len(lines) - 1):
        raise RequestRefused("malformed", "The header holds a control character, or a line without CRLF.")
    fields: list[tuple[bytes, bytes]] = []
    own: dict[bytes, list[bytes]] = {}
    for line in lines:
        spelling, colon, value = line.partition(b":")
        name = _USUAL.get(spelling + colon)
        if name is None:
            # A space before the colon, and a line that continues the one before, fail here too.
            if not colon or not spelling or spelling.translate(None, _TOKEN):
                raise RequestRefused("malformed", "A header line is not a token, a colon and a value.")
            name = spelling.lower()
        value = value.strip(b" \t")
        fields.append((name, value))
        if name in _OWN:
            own.setdefault(name, []).append(value)
    return fields, own


def _origin_form(target: bytes, method: str, own: dict[bytes, list[bytes]], *, is_host_needed: bool) -> bytes:
    hosts = own.get(b"host", [])
    if len(hosts) > 1 or (is_host_needed and not hosts):
        raise RequestRefused("host", f"A request must have one Host; this one has {len(hosts)}.")
    if hosts:
        _require_host(hosts[0])
    if b"#" in target:
        raise RequestRefused("malformed", "The request target has a fragment.")
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise RequestRefused("malformed", "The request target is neither a path nor an http address.")
    _require_host(absolute[1])
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


# Clients of one server usually send the same name.
@lru_cache(maxsize=64)
def _require_host(value: bytes) -> None:
    match = _HOST.fullmatch(value)
    if match is None or int(match[1] or 0) > 65_535:
        raise RequestRefused("host", "The host is not a name or address with an optional port.")


def _length(own: dict[bytes, list[bytes]], version: str) -> int | None:
    lengths, codings = own.get(b"content-length"), own.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None or version == "1.0":
            raise RequestRefused(
                "framing", "Transfer-Encoding needs HTTP/1.1 and excludes Content-Length; send one of them."
            )
        tokens = _tokens(codings)
        if tokens.count(b"chunked") > 1 or tokens[-1] == b"":
            raise RequestRefused(
                "framing", "Transfer-Encoding is not a list of codings that ends with chunked."
            )
        if tokens != [b"chunked"]:
            raise NotImplementedHere("coding", "The only transfer coding here is chunked.")
        return None
    if lengths is None:
        return 0
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise RequestRefused(
            "framing", f"Content-Length must be sent once, as a number of up to {LENGTH_DIGITS} digits."
        )
    return int(lengths[0])


def _require_websocket(method: str, version: str, length: int | None, own: dict[bytes, list[bytes]]) -> None:
    if method != "GET" or version != "1.1" or length != 0:
        raise RequestRefused("upgrade", "A WebSocket upgrade must be a GET of HTTP/1.1 without a body.")
    if own.get(b"sec-websocket-version") != [b"13"]:
        raise UpgradeNotPossible("upgrade", "Sec-WebSocket-Version must be 13.")
    keys = own.get(b"sec-websocket-key", [])
    try:
        is_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        is_key = False
    if not is_key:
        raise RequestRefused("upgrade", "Sec-WebSocket-Key must be 16 bytes in base64, sent once.")


def _tokens(values: list[bytes]) -> list[bytes]:
    return [part.strip(b" \t").lower() for part in b",".join(values).split(b",")]
