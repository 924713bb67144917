"""Channels and their listeners."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chassis.errors import Overloaded, TooManyAtOnce
from gateway.publishing.hub import FEW_SUBSCRIPTIONS, Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.signals import MembersLeft, Signal


def news(channel: str, offset: int = 1) -> Publication:
    return Publication(channel, ChannelPosition("e", offset), {"n": offset})


async def test_a_listener_hears_its_channel_in_order_and_no_other() -> None:
    hub, heard = Hub(), list[int]()
    hub.listen("a", lambda publication: heard.append(publication.position.offset))
    for offset in (3, 1, 2):
        hub.publish(news("a", offset))
        hub.publish(news("b", 99))
    assert heard == [3, 1, 2]


async def test_a_listener_that_stops_receives_nothing_and_leaves_nothing_behind() -> None:
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


async def test_a_listener_that_fails_keeps_nothing_from_the_others() -> None:
    hub, heard, signals = Hub(), list[Publication](), list[Signal]()

    def fail(_: object) -> None:
        raise RuntimeError

    hub.listen("a", fail, owner="7", on_signal=fail)
    hub.listen("a", heard.append, owner="7", on_signal=signals.append)
    published, changed = news("a"), MembersLeft("a", frozenset({"7"}))
    hub.publish(published)
    hub.signal(changed)
    assert (heard, signals) == ([published], [changed])


def test_publishing_to_nobody_leaves_no_trace() -> None:
    hub = Hub()
    hub.publish(news("a"))
    assert hub.counts() == {}


async def test_a_listener_may_stop_itself_or_another_while_it_hears() -> None:
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


def fill(hub: Hub, owner: str, number: int) -> list[Callable[[], None]]:
    return [hub.listen(f"{owner}:{n}", lambda _: None, owner=owner) for n in range(number)]


def test_an_owner_has_no_more_subscriptions_than_it_leaves_free_and_the_last_are_for_others() -> None:
    hub = Hub(most_subscriptions=8_000)
    for owner, most in (("a", 3_500), ("b", 1_750), ("c", 875)):
        fill(hub, owner, most)
        with pytest.raises(TooManyAtOnce, match=f"{most} of them yours"):
            fill(hub, owner, 1)
    fill(hub, "d", FEW_SUBSCRIPTIONS)
    assert sum(hub.counts().values()) == 3_500 + 1_750 + 875 + FEW_SUBSCRIPTIONS


def test_while_all_subscriptions_are_taken_only_an_owner_with_few_is_told_that_the_gateway_is_full() -> None:
    hub = Hub(most_subscriptions=2 * FEW_SUBSCRIPTIONS + 50)
    for owner, most in (("a", FEW_SUBSCRIPTIONS), ("b", FEW_SUBSCRIPTIONS), ("c", 50)):
        fill(hub, owner, most)
    for owner, refusal in (("a", TooManyAtOnce), ("c", Overloaded), ("d", Overloaded)):
        with pytest.raises(refusal):
            fill(hub, owner, 1)


def test_all_subscriptions_together_have_a_bound_and_one_that_ends_makes_room_once() -> None:
    hub = Hub(most_subscriptions=300)
    kept = {owner: fill(hub, owner, 100) for owner in "abc"}
    with pytest.raises(Overloaded):
        fill(hub, "d", 1)
    # The service itself is not refused.
    hub.listen("d:0", lambda _: None)()
    [stop, *_] = kept["a"]
    stop()
    stop()
    fill(hub, "d", 1)
    with pytest.raises(Overloaded):
        fill(hub, "d", 1)
    assert len(hub.counts()) == 300
