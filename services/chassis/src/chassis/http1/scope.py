"""The ASGI scope of a request."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from chassis.http1.admission import PLACE
from chassis.http1.head import RequestHead

Scope = MutableMapping[str, Any]

_ASGI = {"version": "3.0", "spec_version": "2.3"}


@dataclass(frozen=True)
class Ends:
    """Both addresses of a connection, and its scheme."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str


def http_scope(head: RequestHead, ends: Ends, state: Mapping[str, Any], place: object) -> Scope:
    """Return the scope of an HTTP request; `place` is the place that its connection holds in the limits."""
    raw_path, _, query = head.target.partition(b"?")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": head.version,
        "server": ends.server,
        "client": ends.client,
        "scheme": ends.scheme,
        "root_path": "",
        "headers": head.fields,
        "state": dict(state),
        "method": head.method,
        "path": unquote(keep_slashes(raw_path).decode()) if b"%" in raw_path else raw_path.decode(),
        "raw_path": raw_path,
        "query_string": query,
        PLACE: place,
    }


def keep_slashes(path: bytes) -> bytes:
    """Return `path` so that an encoded slash stays encoded after the path is decoded.

    A proxy in front sees `/v1%2Fadmin` as one segment: if it were two here, its rules for `/v1/admin`
    would not apply.
    """
    return path.replace(b"%2F", b"%252F").replace(b"%2f", b"%252f")


def websocket_head(head: RequestHead) -> bytes:
    """Return the head of a WebSocket upgrade, for the protocol that takes over the connection."""
    path, mark, query = head.target.partition(b"?")
    lines = [b"GET %b%b%b HTTP/1.1\r\n" % (keep_slashes(path), mark, query)]
    lines += [b"%b: %b\r\n" % field for field in head.fields]
    return b"".join([*lines, b"\r\n"])
