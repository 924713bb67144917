"""Held publications come before later ones, each position exactly once, whatever overlaps with what."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.publishing.positions import ChannelPosition, Handover, HandoverOverflow, Progression


@dataclass(frozen=True)
class News:
    position: ChannelPosition


def news(offset: int, epoch: str = "a") -> News:
    return News(ChannelPosition(epoch, offset))


def test_held_publications_are_sent_before_those_that_come() -> None:
    handover: Handover[News] = Handover(is_ordered=True)
    for offset in (4, 5, 6):
        assert not handover.offer(news(offset))
    assert handover.begin(ChannelPosition("a", 5)) == [news(6)]
    assert handover.offer(news(7))
    assert handover.position == ChannelPosition("a", 7)


def test_a_position_that_was_sent_is_not_sent_again() -> None:
    handover: Handover[News] = Handover(is_ordered=True)
    assert handover.begin(ChannelPosition("a", 5)) == []
    assert [handover.offer(news(offset)) for offset in (5, 6, 6, 4, 7)] == [False, True, False, False, True]


def test_a_new_epoch_goes_on_and_the_old_one_never_comes_back() -> None:
    handover: Handover[News] = Handover(is_ordered=False)
    handover.begin(ChannelPosition("a", 90))
    assert handover.offer(news(1, "b"))
    assert not handover.offer(news(91, "a"))
    assert handover.offer(news(2, "b"))


def test_held_publications_of_an_earlier_epoch_are_older_than_the_state() -> None:
    handover: Handover[News] = Handover(is_ordered=False)
    for one in (news(90, "a"), news(1, "b"), news(2, "b")):
        handover.offer(one)
    assert handover.begin(ChannelPosition("b", 1)) == [news(2, "b")]
    assert not handover.offer(news(91, "a"))


def test_more_publications_than_can_be_held_are_an_error_where_all_of_them_count() -> None:
    ordered: Handover[News] = Handover(is_ordered=True, most_held=2)
    newest: Handover[News] = Handover(is_ordered=False, most_held=2)
    for offset in (1, 2, 3):
        ordered.offer(news(offset))
        newest.offer(news(offset))
    with pytest.raises(HandoverOverflow):
        ordered.begin(ChannelPosition("a", 0))
    assert newest.begin(ChannelPosition("a", 0)) == [news(2), news(3)]


def test_no_more_are_held_than_can_be_sent() -> None:
    handover: Handover[News] = Handover(is_ordered=True, most_held=5)
    published = [news(offset) for offset in range(1, 101)]
    held = [weakref.ref(one) for one in published]
    while published:
        handover.offer(published.pop(0))
    assert sum(one() is not None for one in held) == 5


def test_numbered_epochs_are_ordered_by_their_number() -> None:
    handover: Handover[News] = Handover(is_ordered=False)
    for one in (news(90, "9"), news(91, "9")):
        handover.offer(one)
    assert handover.begin(ChannelPosition("10", 1)) == []
    assert not handover.offer(news(92, "9"))
    assert handover.offer(news(2, "10"))


def test_a_progression_refuses_the_last_epochs_that_were_left() -> None:
    progression = Progression(ChannelPosition("e0", 5))
    for number in range(1, 6):
        assert progression.advance(ChannelPosition(f"e{number}", 1))
    assert not any(progression.advance(ChannelPosition(f"e{number}", 99)) for number in range(5))
    assert progression.at == ChannelPosition("e5", 1)


class AnyOverlap(RuleBasedStateMachine):
    """One source, its line of positions, and a subscriber that may begin at any moment.

    The source publishes to whoever listens; it may publish a position again, or one of an epoch that is
    over. The state that is read is a point of the line, not older than the moment when listening began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.line = [ChannelPosition("e0", 0)]
        self.handover: Handover[News] | None = None
        self.state: int | None = None
        self.begun = False
        self.sent: list[ChannelPosition] = []

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        for _ in range(count):
            at = self.line[-1]
            self._tell(ChannelPosition(at.epoch, at.offset + 1))

    @rule()
    def begin_a_new_epoch(self) -> None:
        number = int(self.line[-1].epoch[1:])
        self._tell(ChannelPosition(f"e{number + 1}", 1))

    def _tell(self, position: ChannelPosition) -> None:
        self.line.append(position)
        if self.handover is not None and self.handover.offer(News(position)):
            self.sent.append(position)

    @precondition(lambda self: self.handover is not None and self.begun)
    @rule(data=st.data())
    def say_again_what_is_over(self, data: st.DataObject) -> None:
        assert self.handover is not None
        assert self.state is not None
        # Only the last few epochs that were left are remembered.
        newest = int(self.line[-1].epoch[1:])
        recent = [one for one in self.line[self.state :] if int(one.epoch[1:]) > newest - 5]
        assert not self.handover.offer(News(data.draw(st.sampled_from(recent))))

    @precondition(lambda self: self.handover is None)
    @rule(is_ordered=st.booleans())
    def listen(self, is_ordered: bool) -> None:
        self.handover = Handover(is_ordered=is_ordered)

    @precondition(lambda self: self.handover is not None and self.state is None)
    @rule()
    def read_the_state(self) -> None:
        self.state = len(self.line) - 1

    @precondition(lambda self: self.state is not None and not self.begun)
    @rule()
    def send_the_reply(self) -> None:
        assert self.handover is not None
        assert self.state is not None
        self.begun = True
        self.sent += [one.position for one in self.handover.begin(self.line[self.state])]

    @invariant()
    def everything_behind_the_state_was_sent_once_and_in_order(self) -> None:
        if self.begun:
            assert self.state is not None
            assert self.sent == self.line[self.state + 1 :]


TestAnyOverlap = AnyOverlap.TestCase
TestAnyOverlap.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
