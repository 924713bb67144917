"""Replies of a relay and what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer import outcomes
from emailer.outcomes import HOUR_S, MINUTE_S, Reply, Verdict


@pytest.mark.parametrize(
    ("code", "after_content", "verdict"),
    [
        (250, True, "delivered"),
        (251, True, "delivered"),
        (250, False, "deferred"),
        (354, True, "deferred"),
        (421, False, "deferred"),
        (450, True, "deferred"),
        (500, False, "failed"),
        (550, True, "failed"),
        (552, True, "failed"),
        (530, False, "refused-login"),
        (535, False, "refused-login"),
        (534, False, "refused-login"),
    ],
)
def test_a_code_decides(code: int, after_content: bool, verdict: Verdict) -> None:
    assert outcomes.judge(Reply(code, ""), after_content=after_content) == verdict


@given(st.integers(0, 999), st.booleans())
def test_only_a_yes_to_the_content_is_a_delivery(code: int, after_content: bool) -> None:
    verdict = outcomes.judge(Reply(code, ""), after_content=after_content)
    assert (verdict == "delivered") == (after_content and 200 <= code < 300)


def test_waits_grow_and_the_last_one_repeats() -> None:
    waits = [outcomes.wait_s(tries) for tries in range(1, 9)]
    assert waits == [60, 300, 900, HOUR_S, 4 * HOUR_S, 8 * HOUR_S, 8 * HOUR_S, 8 * HOUR_S]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Greylisted, please try again in 300 seconds", 300),
        ("4.7.1 Greylisted for 5 minutes", 5 * MINUTE_S),
        ("try again in 5 min", 5 * MINUTE_S),
        ("Deferred: try again in 30s.", 30),
        ("Too fast; retry after 1 hour", HOUR_S),
        ("try again in 900 hours", 24 * HOUR_S),
        ("try again in 0 seconds", 1),
        ("try again later", None),
        ("4.2.0 mailbox busy", None),
        ("try again, you sent 10 messages", None),
        ("waited 500 ms", None),
    ],
)
def test_a_wish_for_a_wait_is_read(text: str, seconds: float | None) -> None:
    assert outcomes.wished_wait_s(text) == seconds


def test_a_wish_comes_before_the_schedule() -> None:
    assert outcomes.wait_s(4, reply=Reply(450, "try again in 2 minutes")) == 2 * MINUTE_S


def test_a_full_mailbox_gets_more_time() -> None:
    assert outcomes.wait_s(1, reply=Reply(452, "4.2.2 mailbox full")) == HOUR_S
    assert outcomes.wait_s(5, reply=Reply(452, "4.2.2 mailbox full")) == 4 * HOUR_S
    assert outcomes.wait_s(1, reply=Reply(452, "4.3.1 disk full")) == MINUTE_S


def test_everything_is_scaled() -> None:
    assert outcomes.wait_s(1, scale=0.1) == 6
    assert outcomes.wait_s(1, reply=Reply(450, "try again in 20 seconds"), scale=0.1) == 2


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    wished = outcomes.wished_wait_s(text)
    assert wished is None or 1 <= wished <= 24 * HOUR_S
