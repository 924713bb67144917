"""Limits on work at a time: of each owner, and in total."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from chassis.errors import Overloaded, TooManyAtOnce
from chassis.places import Places


def test_an_owner_over_its_share_is_refused_and_others_still_have_room() -> None:
    places = Places("uploads", of_owner=2, most=3)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.hold("ann"))
        with pytest.raises(TooManyAtOnce, match="2 uploads at once") as refused:
            held.enter_context(places.hold("ann"))
        assert (refused.value.status, refused.value.retry_after_s) == (429, 2)
        held.enter_context(places.hold("bob"))
        with pytest.raises(Overloaded, match="All owners together may have 3 uploads"):
            held.enter_context(places.hold("eve"))
        assert (places.taken, places.taken_by("ann"), places.taken_by("eve")) == (3, 2, 0)
    assert (places.taken, places.taken_by("ann")) == (0, 0)


def test_a_place_is_free_again_also_after_a_failure() -> None:
    places = Places("uploads", of_owner=1)
    with pytest.raises(ZeroDivisionError), places.hold("ann"):
        _ = 1 / 0
    with places.hold("ann"):
        assert places.taken == 1
