"""All limits of the HTTP server, each with its reason."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# More than common servers and proxies allow (nginx 32 KiB, Node.js 16 KiB, HAProxy 16 KiB).
HEAD_BYTES = 64 * 1024
# RFC 9112 recommends at least 8,000 octets.
REQUEST_LINE_BYTES = 8 * 1024
# Each field costs more than its bytes; browsers send about 20 and proxies add 10.
FIELDS = 100
# Numbers of these lengths fit into signed 64 bits.
LENGTH_DIGITS = 19
CHUNK_SIZE_DIGITS = 15
CHUNK_LINE_BYTES = 4 * 1024
# Framing beyond what small chunks need, as in Go's net/http: 16 bytes and twice its data for each chunk.
CHUNK_EXCESS_BYTES = 16 * 1024
TRAILER_BYTES = 8 * 1024
# Lines and data of chunks that are decoded before other connections have their turn; about 1 ms.
CHUNKS_A_TURN = 500
# Bytes that wait for the application, or for the answer before theirs, until reading pauses.
UNREAD_BYTES = 64 * 1024
# Unsent bytes of an answer that the system may buffer, where it would buffer megabytes: what is left in this
# process shows a client that does not read.
UNSENT_BYTES = 64 * 1024
# Bytes of all connections that wait: for the rest of a head, for the answer before theirs, for the
# application to read them, or for a client to take them. Whoever has the most gives up some beyond it.
# What is received of a usual head or a short body is not counted.
WAITING_BYTES = 20 * 1024 * 1024
USUAL_BYTES = 8 * 1024
# Bytes that a client may still send after its answer before the connection is reset: one that does not read
# while it writes must finish writing to see its answer. Three times the largest upload, of 20 MiB.
LINGER_BYTES = 64 * 1024 * 1024
# How often deadlines are checked: one timer for all connections costs a request nothing.
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
    # Between requests. Load balancers close idle connections after 60 s, and must be the first to do so.
    idle_s: float = 75.0
    # The same for a connection without a key: as long as for a new one.
    unauthenticated_idle_s: float = 10.0
    # A body that the application waits for must bring `body_rate` bytes a second, on average of each window.
    body_window_s: float = 10.0
    body_rate: int = 1024
    # How long a client may read nothing of what is written to it.
    write_stall_s: float = 30.0
    # How long a client may take to read its last answer and close. One that still sends has as long again
    # after each part, and `most_linger_s` in all.
    linger_s: float = 5.0
    most_linger_s: float = 30.0


# For listeners that only the internal network reaches: no client sends a key there.
INTERNAL = ConnectionLimits(unauthenticated_idle_s=ConnectionLimits.idle_s)
