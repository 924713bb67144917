"""All limits of the HTTP server, each with its reason."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# What servers in front of others allow (nginx 32 KiB, Node.js 16 KiB, HAProxy 16 KiB), with room to spare.
HEAD_BYTES = 64 * 1024
# RFC 9112 recommends at least 8,000 octets.
REQUEST_LINE_BYTES = 8 * 1024
# Each field costs more than its bytes; browsers send about 20 and proxies add 10.
FIELDS = 100
# Of numbers that fit into 64 bits, signed.
LENGTH_DIGITS = 19
CHUNK_SIZE_DIGITS = 15
CHUNK_LINE_BYTES = 4 * 1024
# Framing of chunks beyond what small chunks need, as in Go's net/http: 16 bytes and twice its data a chunk.
CHUNK_EXCESS_BYTES = 16 * 1024
TRAILER_BYTES = 8 * 1024
# Lines and data of chunks that are decoded before other connections have their turn; about 1 ms.
CHUNKS_A_TURN = 500
# Bytes that wait for the application, or for the answer before theirs, until reading pauses.
UNREAD_BYTES = 64 * 1024
# Of an answer that the system takes and has not sent, where it would take megabytes: a client that does not
# read is noticed by what is left here.
UNSENT_BYTES = 64 * 1024
# Of heads that have begun and not ended, in all; a head of usual size is always taken.
UNFINISHED_HEADS_BYTES = 16 * 1024 * 1024
USUAL_HEAD_BYTES = 8 * 1024
# What a client that has its answer may still send before the connection is reset: a client that does not
# read while it writes needs as much to reach its answer. Ten times the largest document, and some.
LINGER_BYTES = 16 * 1024 * 1024
# How often deadlines are looked at: one timer for all connections costs a request nothing.
LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Places and times of one listener's connections.

    `unauthenticated_share` is the part of all places, and of those of each address, for connections without a
    valid key, `owner_share` the part for connections with keys of one owner. `trusted_proxies` report their
    client in `X-Forwarded-For`: the limits of an address then apply to that client.
    """

    most: int = 1024
    per_address: int = 1024
    unauthenticated_share: float = 1.0
    owner_share: float = 1.0
    trusted_proxies: tuple[Network, ...] = ()
    # From the first byte of a request to the end of its head, and from the connection to its first byte.
    head_s: float = 10.0
    # Between requests. Load balancers give up idle connections after 60 s and want to be the first.
    idle_s: float = 75.0
    # The same for a connection without a key: as long as a new one has.
    unauthenticated_idle_s: float = 10.0
    # A body that the application waits for must bring `body_rate` bytes a second, on average of each window.
    body_window_s: float = 10.0
    body_rate: int = 1024
    # How long a client may take nothing of what is written to it.
    write_stall_s: float = 30.0
    # How long a client may take to read its last answer and close.
    linger_s: float = 5.0


# For listeners that only the own network reaches: nobody shows a key there.
INTERNAL = ConnectionLimits(unauthenticated_idle_s=ConnectionLimits.idle_s)
