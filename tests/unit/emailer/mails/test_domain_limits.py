"""The setting that limits destination domains: its meaning, and the values that are refused."""

from __future__ import annotations

import pytest

from emailer.mails.domain_limits import DomainLimit, DomainLimits, Rate


def test_a_domain_has_its_own_limits_and_every_other_one_those_of_the_wildcard() -> None:
    limits = DomainLimits.read("gmail.com=4, gmail.com=100/60,*=20/1")
    assert limits.of("gmail.com") == DomainLimit(4, Rate(100, 60))
    assert limits.of("example.com") == DomainLimit(None, Rate(20, 1))
    assert DomainLimits.read("gmail.com=4").of("example.com") == DomainLimit()
    assert DomainLimits.read("").of("gmail.com") == DomainLimit()


def test_a_domain_has_the_same_limits_however_it_is_written() -> None:
    limits = DomainLimits.read("Exämple.COM=2")
    assert limits.of("xn--exmple-cua.com") == limits.of("exämple.com") == DomainLimit(2)


@pytest.mark.parametrize(
    "text",
    [
        *("gmail.com", "gmail.com=", "=4", "gmail.com=0", "gmail.com=4/0", "gmail.com=-1", "gmail.com=1/2/3"),
        *("gmail.com=4,gmail.com=5", "*=1/2,*=3/4", "gmail.com=1/90000", "a b=3", "localhost=3", "*.com=3"),
        "gmail.com=10000000",
    ],
)
def test_an_invalid_limit_is_refused_with_its_part(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a limit|a second time"):
        DomainLimits.read(text)


def test_an_attempt_counts_for_at_least_the_period_of_its_rate() -> None:
    rate = Rate(100, 60)
    assert rate.window_s - rate.slot_s == 60
    assert Rate(1, 1).slot_s == 0.01
