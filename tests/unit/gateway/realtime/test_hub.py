"""Channels and their listeners."""

from __future__ import annotations

from gateway.realtime.hub import Hub, Publication


def news(channel: str, offset: int = 1) -> Publication:
    return Publication(channel, offset, "2026-01-01T00:00:00Z", {"n": offset})


def test_a_listener_hears_its_channel_in_order_and_no_other() -> None:
    hub, heard = Hub(), list[int]()
    hub.listen("a", lambda publication: heard.append(publication.offset))
    for offset in (3, 1, 2):
        hub.publish(news("a", offset))
        hub.publish(news("b", 99))
    assert heard == [3, 1, 2]


def test_after_stopping_nothing_is_heard_and_nothing_is_left() -> None:
    hub, heard = Hub(), list[int]()
    stop = hub.listen("a", lambda publication: heard.append(publication.offset))
    other = hub.listen("a", lambda publication: heard.append(-publication.offset))
    stop()
    hub.publish(news("a"))
    assert heard == [-1]
    other()
    other()
    assert not hub.has_listeners("a")
    assert hub.counts() == {}


def test_publishing_to_nobody_leaves_no_trace() -> None:
    hub = Hub()
    hub.publish(news("a"))
    assert hub.counts() == {}


def test_a_listener_may_stop_itself_or_another_while_it_hears() -> None:
    hub, heard = Hub(), list[str]()

    def first(_: Publication) -> None:
        heard.append("first")
        stop_first()

    stop_first = hub.listen("a", first)
    hub.listen("a", lambda _: heard.append("second"))
    hub.publish(news("a"))
    hub.publish(news("a"))
    assert heard == ["first", "second", "second"]


def test_listeners_are_counted_by_channel() -> None:
    hub = Hub()
    hub.listen("a", lambda _: None)
    hub.listen("a", lambda _: None)
    hub.listen("b", lambda _: None)
    assert hub.counts() == {"a": 2, "b": 1}


def test_a_publication_shows_channel_offset_time_and_data() -> None:
    assert news("a", 4).document() == {
        "channel": "a",
        "offset": 4,
        "ts": "2026-01-01T00:00:00Z",
        "data": {"n": 4},
    }
