"""The number and kind of failures that suppress an address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from emailer.suppression.faults import Fault
from emailer.suppression.rules import AddressFailure, FailureCounts, SuppressionTerms, Target, reason_of

ANN = Target("7", "transactional", "ann@example.com")


def failure(fault: Fault, text: str = "550 no") -> AddressFailure:
    return AddressFailure(ANN, UUID(int=1), fault, "reply", text)


@pytest.mark.parametrize(
    ("fault", "counts", "suppresses"),
    [
        ("gone", FailureCounts(hard=1), True),
        ("hard", FailureCounts(hard=1), False),
        ("hard", FailureCounts(hard=2), True),
        ("soft", FailureCounts(hard=2, soft=4), False),
        ("soft", FailureCounts(soft=5), True),
        ("refused", FailureCounts(hard=9, soft=9), False),
    ],
    ids=str,
)
def test_one_gone_two_hard_or_five_soft_failures_suppress_an_address(
    fault: Fault, counts: FailureCounts, suppresses: bool
) -> None:
    assert SuppressionTerms().suppresses(failure(fault), counts) is suppresses


def test_a_suppression_ends_after_its_days() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    assert SuppressionTerms(days=0.5).ends_at(now) == now + timedelta(hours=12)


def test_the_reason_of_a_suppression_is_one_line_of_a_bounded_length() -> None:
    assert reason_of(failure("hard", "550 no\nsuch  user")) == "550 no such user"
    assert len(reason_of(failure("hard", "x" * 5000))) == 500
