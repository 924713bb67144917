from __future__ import annotations

from datetime import date
from decimal import Decimal

from stock_data.bars import restated
from support.doubles.stock_history import split


def test_a_close_before_a_split_is_told_in_the_shares_after_it() -> None:
    close = restated(
        Decimal("88.99"), of=date(2005, 2, 25), on=date(2005, 2, 28), splits=(split("2005-02-28"),)
    )
    assert close == Decimal("44.495")


def test_a_split_that_has_been_or_is_to_come_changes_nothing() -> None:
    splits = (split("2005-02-25"), split("2005-03-01"))
    assert restated(Decimal(90), of=date(2005, 2, 25), on=date(2005, 2, 28), splits=splits) == 90


def test_a_ratio_that_does_not_divide_is_rounded_to_a_millionth() -> None:
    close = restated(
        Decimal(100), of=date(2014, 6, 6), on=date(2014, 6, 9), splits=(split("2014-06-09", "7"),)
    )
    assert close == Decimal("14.285714")
