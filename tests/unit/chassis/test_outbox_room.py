"""The room of an outbox: full at its bound, and for an owner when it has its share of the second half."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chassis import shares
from chassis.errors import Overloaded, TooManyAtOnce
from chassis.outbox_room import OutboxRoom

MOST = 1_600


@pytest.fixture
def room() -> Iterator[OutboxRoom]:
    token = shares.current.set("")
    yield OutboxRoom(MOST)
    shares.current.reset(token)


def taken(room: OutboxRoom, owner_id: str) -> int:
    """Return how many messages an owner could add, one after the other."""
    shares.current.set(owner_id)
    for number in range(2 * MOST):
        try:
            room.take(1)
        except TooManyAtOnce:
            return number
    return 2 * MOST


def test_one_owner_leaves_room_for_others_while_nothing_leaves(room: OutboxRoom) -> None:
    room.note_depth(MOST // 2)
    guest = taken(room, "guest")
    assert guest == MOST // 2 * 7 // 16
    room.note_depth(MOST // 2 + guest)
    assert taken(room, "guest") == 0
    assert taken(room, "ann") == guest // 2
    assert min(taken(room, f"owner {number}") for number in range(20)) >= 1


def test_what_an_owner_adds_counts_before_it_is_measured(room: OutboxRoom) -> None:
    room.note_depth(MOST - 1)
    shares.current.set("guest")
    room.take(1)
    with pytest.raises(Overloaded):
        room.take(1)


def test_a_request_with_many_messages_counts_each(room: OutboxRoom) -> None:
    room.note_depth(MOST // 2)
    shares.current.set("guest")
    room.take(500)
    with pytest.raises(TooManyAtOnce) as caught:
        room.take(1)
    assert caught.value.retry_after_s == 10


def test_once_half_of_the_room_is_free_nothing_is_remembered(room: OutboxRoom) -> None:
    room.note_depth(MOST // 2)
    taken(room, "guest")
    room.note_depth(MOST // 2 - 1)
    room.note_depth(MOST // 2)
    assert taken(room, "guest") > 0


def test_below_half_of_the_room_and_for_a_service_itself_no_share_counts(room: OutboxRoom) -> None:
    room.note_depth(MOST // 2 - 1)
    assert taken(room, "guest") == 2 * MOST
    room.note_depth(MOST - 1)
    assert taken(room, "") == 2 * MOST
    room.note_depth(MOST)
    with pytest.raises(Overloaded):
        room.take(1)
