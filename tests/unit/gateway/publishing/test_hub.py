"""Channels and their listeners."""

from __future__ import annotations

from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.signals import Moved, Signal


def news(channel: str, offset: int = 1) -> Publication:
    return Publication(channel, ChannelPosition("e", offset), {"n": offset})


def test_a_listener_hears_its_channel_in_order_and_no_other() -> None:
    hub, heard = Hub(), list[int]()
    hub.listen("a", lambda publication: heard.append(publication.position.offset))
    for offset in (3, 1, 2):
        hub.publish(news("a", offset))
        hub.publish(news("b", 99))
    assert heard == [3, 1, 2]


def test_a_listener_that_stops_receives_nothing_and_leaves_nothing_behind() -> None:
    hub, heard = Hub(), list[int]()
    stop = hub.listen("a", lambda publication: heard.append(publication.position.offset))
    other = hub.listen("a", lambda publication: heard.append(-publication.position.offset))
    stop()
    hub.publish(news("a"))
    assert heard == [-1]
    other()
    other()
    assert not hub.has_listeners("a")
    assert hub.counts() == {}


def test_a_listener_that_fails_keeps_nothing_from_the_others() -> None:
    hub, heard, moves = Hub(), list[Publication](), list[Signal]()

    def fail(_: object) -> None:
        raise RuntimeError

    hub.listen("a", fail, on_signal=fail)
    hub.listen("a", heard.append, on_signal=moves.append)
    published, moved = news("a"), Moved("a", "client", "7", is_join=True)
    hub.publish(published)
    hub.signal(moved)
    assert (heard, moves) == ([published], [moved])


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


def test_listeners_are_counted_and_found_by_channel() -> None:
    hub = Hub()
    hub.listen("a:1", lambda _: None)
    hub.listen("a:1", lambda _: None)
    hub.listen("b:1", lambda _: None)
    assert hub.counts() == {"a:1": 2, "b:1": 1}
    assert list(hub.channels("a:")) == ["a:1"]
