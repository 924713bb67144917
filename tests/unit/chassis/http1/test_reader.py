"""The same bytes are the same requests, however they are cut, and as another parser reads them."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chassis.http1.limits import CHUNKS_A_TURN, HEAD_BYTES
from chassis.http1.reader import RequestReader
from chassis.http1.refusals import RequestRefused

Request = tuple[str, bytes, bytes]

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def read_all(*segments: bytes) -> list[Request]:
    """Return the whole requests in `segments`; an incomplete one at the end is left out."""
    reader, found, head, body = RequestReader(), [], None, b""
    for segment in segments:
        reader.buffer += segment
        before = -1
        while reader.buffer and len(reader.buffer) != before:
            before = len(reader.buffer)
            if head is None:
                head, body = reader.read_head(), b""
            else:
                body += reader.read_body()
            if head is not None and not reader.is_in_body:
                found.append((head.method, head.target, body))
                head = None
    return found


def read_by_h11(data: bytes) -> list[Request]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found: list[Request] = []
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        if isinstance(event, h11.Request):
            found.append((event.method.decode(), bytes(event.target), b""))
        elif isinstance(event, h11.Data):
            method, target, body = found.pop()
            found.append((method, target, body + bytes(event.data)))
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return found


def refused(*segments: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        read_all(*segments)
    return caught.value


PIECES = [
    GET,
    b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /d HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"A;x=y\r\n0123456789\r\n1;q\r\na\r\n000\r\nTrailer: 1\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
]
NOISE = st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b";", b"0", b"a", b",", b"-"])


@settings(deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), data=st.data())
def test_however_the_bytes_are_cut_the_requests_are_the_same(
    pieces: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))
    segments = [whole[start:end] for start, end in pairwise(sorted({0, len(whole), *cuts}))]
    expected = read_by_h11(whole)
    assert len(expected) == len(pieces)
    assert read_all(*segments) == expected
    assert read_all(*[bytes([octet]) for octet in whole]) == expected


@settings(deadline=None, max_examples=400)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3), noise=NOISE, data=st.data())
def test_every_request_read_here_is_read_the_same_by_another_parser(
    pieces: list[bytes], noise: bytes, data: st.DataObject
) -> None:
    whole = b"".join(pieces)
    at = data.draw(st.integers(1, len(whole) - 1))
    length = data.draw(st.sampled_from([0, len(noise)]))
    changed = whole[:at] + noise + whole[at + length :]
    # An empty line before a request is passed over here, and not there.
    assume(b"\r\n\r\n\r\n" not in changed)
    # The connection ends behind a request of HTTP/1.0: the reader leaves that to the connection.
    assume(b"HTTP/1.0" not in changed)
    try:
        found = read_all(changed)
    except RequestRefused:
        return
    assert read_by_h11(changed)[: len(found)] == found


def test_an_empty_line_before_a_request_is_passed_over_once() -> None:
    assert len(read_all(GET + b"\r\n" + GET)) == 2
    assert refused(GET + b"\r\n\r\n" + GET).status == 400


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/9.9\r\n", 505),
        (b"FOO / HTTP/1.1\r\n", 501),
        (b"GET /" + b"a" * 8192, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 100_000, 431),
    ],
)
def test_bytes_that_cannot_become_a_request_are_refused_at_once(beginning: bytes, status: int) -> None:
    assert refused(beginning).status == status
    segments = [beginning[start : start + 7] for start in range(0, len(beginning), 7)]
    assert refused(*segments).status == status


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1 ;a\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n\r\n",
        b"1;\x00\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na\r\n\r\n",
        b"f" * 16 + b"\r\n",
        b"0" * 5000 + b"1\r\n",
        b"1;" + b"a" * 5000,
        b"1;" + b"a" * 5000 + b"\r\na\r\n",
        (b"1;" + b"a" * 1000 + b"\r\na\r\n") * 20,
        b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    ],
)
def test_an_invalid_chunk_is_refused(body: bytes) -> None:
    assert refused(CHUNKED + body).reason == "chunk"


def test_many_small_chunks_are_read_in_turns() -> None:
    reader = RequestReader()
    reader.buffer += CHUNKED + b"1\r\na\r\n" * 10 * CHUNKS_A_TURN + b"0\r\n\r\n"
    reader.read_head()
    parts = []
    while reader.is_in_body:
        parts.append(reader.read_body())
    assert b"".join(parts) == b"a" * 10 * CHUNKS_A_TURN
    assert max(map(len, parts)) <= CHUNKS_A_TURN
