"""The limits as text: read, or refused with what is wrong."""

from __future__ import annotations

import pytest

from gateway.http.rates import RateClass
from gateway.limits.policies import DEFAULT_TEXT, DefaultLimit, Policy, read_policies


def test_limits_are_read_with_their_windows() -> None:
    assert read_policies("quote=10/5, send=3600/3600,read=7") == {
        RateClass.QUOTE: Policy(10, 5),
        RateClass.SEND: Policy(3600, 3600),
        RateClass.READ: Policy(7, 60),
    }


def test_a_class_that_is_left_out_or_has_none_has_no_limit() -> None:
    assert read_policies("") == {}
    assert set(read_policies("quote=0/60,chat=1/1")) == {RateClass.CHAT}


def test_every_class_has_a_limit_by_default() -> None:
    assert all(
        policy == Policy(getattr(DefaultLimit, rate.name), 60)
        for rate, policy in read_policies(DEFAULT_TEXT).items()
    )
    assert set(read_policies(DEFAULT_TEXT)) == set(RateClass)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("quotes=1/1", "there are quote, read"),
        ("quote", "is not <class>=<requests>/<seconds>"),
        ("quote=-1/60", "is not <class>=<requests>/<seconds>"),
        ("quote=1/60;read=1/60", "is not <class>=<requests>/<seconds>"),
        ("quote=1/0", "a window has 1 to 86400 seconds"),
        ("quote=1/86401", "a window has 1 to 86400 seconds"),
        ("quote=2000000000/60", "at most 1000000000 requests"),
        ("quote=1/60,quote=2/60", "named twice"),
    ],
)
def test_a_text_that_is_no_list_of_limits_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_policies(text)
