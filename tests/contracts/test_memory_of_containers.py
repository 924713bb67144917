"""What the gateway may hold at once fits into its container, whichever of it comes together."""

from __future__ import annotations

from pathlib import Path

from chassis import shares
from chassis.http1.limits import USUAL_BYTES, WAITING_BYTES
from faults.street import memory_limits
from gateway.batches import upload_turns
from gateway.http import bodies, sending
from gateway.http.shared_bytes import MOST_SHARED_BYTES
from gateway.publishing.hub import SUBSCRIPTION_BYTES
from gateway.realtime import slow_clients
from gateway.realtime.connection_limit import SOCKET_BYTES
from gateway.settings import GatewaySettings
from gateway.stocks import tables
from gateway.uploads import service as files
from gateway.webhooks import deliverer

_MIB = 1 << 20
# Of a gateway that has just started, with all that it imports: docs/performance.md.
_EMPTY = 76 * _MIB
_PARTS = {
    "large bodies": bodies.PART_BYTES,
    "smaller bodies": bodies.SMALLER_PART_BYTES,
    "documents": bodies.DOCUMENT_PART_BYTES,
    "large answers": sending.PART_BYTES,
    "streams": sending.STREAMS_PART_BYTES,
    "NDJSON uploads": upload_turns.PART_BYTES,
    "uploads of files": files.PART_BYTES,
    "tables of bars": tables.PART_BYTES,
}


def test_all_bytes_that_guests_may_hold_at_the_gateway_fit_into_its_container() -> None:
    connections, sockets, subscriptions = (
        int(GatewaySettings.model_fields[name].default)
        for name in ("most_connections", "most_sockets", "most_subscriptions")
    )
    held = {
        "nothing yet": _EMPTY,
        # What sockets have received is counted with what they wait with.
        "usual heads and short bodies": (connections - sockets) * USUAL_BYTES,
        "sockets with a subscription": sockets * SOCKET_BYTES,
        "further subscriptions": (subscriptions - sockets) * SUBSCRIPTION_BYTES,
        "what connections wait with": WAITING_BYTES,
        "what sockets wait with": slow_clients.MOST_BYTES,
        "attempts of webhooks": deliverer.MOST_AT_ONCE * deliverer.ATTEMPT_BYTES,
        "shared": MOST_SHARED_BYTES,
        **_PARTS,
    }
    assert sum(held.values()) <= memory_limits()["gateway"], held


def test_the_largest_of_each_kind_has_room_in_its_part_and_the_shared_bytes() -> None:
    assert bodies.MOST_DOCUMENT_BYTES_OF_OWNER <= bodies.DOCUMENT_PART_BYTES + MOST_SHARED_BYTES
    assert sending.STREAM_BYTES <= sending.STREAMS_PART_BYTES
    assert upload_turns.UPLOAD_BYTES <= upload_turns.PART_BYTES
    assert files.FILE_BYTES <= files.PART_BYTES
    assert tables.MOST_BYTES_OF_OWNER <= tables.PART_BYTES + MOST_SHARED_BYTES


def test_an_owner_alone_may_have_all_the_streams_and_uploads_that_its_limits_allow() -> None:
    kinds = (
        (upload_turns.MOST_OF_AN_OWNER, upload_turns.UPLOAD_BYTES, upload_turns.PART_BYTES),
        (sending.MOST_STREAMS_OF_OWNER, sending.STREAM_BYTES, sending.STREAMS_PART_BYTES),
        (files.MOST_OF_AN_OWNER, files.FILE_BYTES, files.PART_BYTES),
    )
    for most, each, part in kinds:
        # Of the shared bytes an owner has no more than it leaves free beside the reserve.
        borrowed = most * each - part
        assert borrowed <= 0 or shares.has_room(borrowed - 1, held=borrowed, most=MOST_SHARED_BYTES)


def test_the_page_of_bounds_names_the_parts_and_what_is_shared() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "bounds.md").read_text(encoding="utf-8")
    assert [part for part in _PARTS if f"| part of {part}" not in page] == []
