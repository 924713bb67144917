"""A publication is encoded once, in the form that the protocol calls a push."""

from __future__ import annotations

import orjson

from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from support.doubles.realtime import payload

NEWS = Publication("quotes:A", ChannelPosition("e", 7), {"price": 1.5}, time_ms=1700000000123)


def test_a_push_names_channel_position_time_and_data() -> None:
    assert orjson.loads(payload(NEWS.frame())) == {
        "push": {
            "channel": "quotes:A",
            "pub": {"data": {"price": 1.5}, "offset": 7, "time": 1700000000123, "epoch": "e"},
        }
    }


def test_every_subscriber_gets_the_same_bytes() -> None:
    assert NEWS.frame() is NEWS.frame()
    assert NEWS.frame_after(0) is NEWS.frame()


def test_a_push_says_how_many_it_replaced() -> None:
    pub = orjson.loads(payload(NEWS.frame_after(12)))["push"]["pub"]
    assert pub["tags"] == {"skipped": "12"}
    assert pub["data"] == {"price": 1.5}


def test_in_a_reply_a_publication_has_no_channel() -> None:
    assert NEWS.document() == {"data": {"price": 1.5}, "offset": 7, "time": 1700000000123}
