"""Replies of a relay and what they mean."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer.sending import outcomes
from emailer.sending.outcomes import HOUR_S, MINUTE_S, SmtpAnswer, SmtpReply, Stage, Verdict

STAGES: tuple[Stage, ...] = get_args(Stage)
answers = st.builds(
    SmtpAnswer,
    st.builds(SmtpReply, st.integers(0, 999), st.text(max_size=30) | st.just("5.4.5 quota exceeded")),
    st.sampled_from(STAGES),
    logged_in=st.booleans(),
    reused=st.booleans(),
)


@given(answers)
def test_there_is_a_rule_for_every_answer(answer: SmtpAnswer) -> None:
    assert outcomes.judge(answer) in get_args(Verdict)


@given(answers)
def test_only_a_positive_reply_to_the_content_is_a_delivery(answer: SmtpAnswer) -> None:
    is_yes = answer.stage == "content" and 200 <= answer.reply.code < 300
    assert (outcomes.judge(answer) == "delivered") == is_yes


@given(answers.filter(lambda answer: answer.stage in ("recipient", "data", "content")))
def test_a_reply_about_a_recipient_or_a_content_never_stops_the_route(answer: SmtpAnswer) -> None:
    assert outcomes.judge(answer) in ("delivered", "deferred", "failed", "new-session")


@given(answers.filter(lambda answer: answer.stage in ("greeting", "hello", "starttls", "login")))
def test_a_reply_before_a_mail_is_never_its_outcome(answer: SmtpAnswer) -> None:
    assert outcomes.judge(answer) in ("unreachable", "login-refused")


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
        # The words of milter-greylist.
        ("4.7.1 Greylisting in action, please come back in 00:29:58", 29 * MINUTE_S + 58),
        ("Greylisted: come back in 1:00:00", HOUR_S),
        ("come back in 99:00:00", 24 * HOUR_S),
        ("wait until 12:30", None),
        ("try again in 900 hours", 24 * HOUR_S),
        ("try again in 0 seconds", 1),
        ("try again later", None),
        ("4.2.0 mailbox busy", None),
        ("try again, you sent 10 messages", None),
        ("waited 500 ms", None),
    ],
)
def test_a_delay_that_a_reply_asks_for_is_read(text: str, seconds: float | None) -> None:
    assert outcomes.wished_wait_s(text) == seconds


def test_a_delay_that_a_reply_asks_for_overrides_the_schedule() -> None:
    assert outcomes.wait_s(4, reply=SmtpReply(450, "try again in 2 minutes")) == 2 * MINUTE_S
    at_once = [outcomes.wait_s(tries, reply=SmtpReply(450, "try again in 1 second")) for tries in range(1, 8)]
    assert at_once == [1, 3, 9, 36, 144, 288, 288], "waits grow, whatever is asked for"


def test_a_full_mailbox_gets_more_time() -> None:
    assert outcomes.wait_s(1, reply=SmtpReply(452, "4.2.2 mailbox full")) == HOUR_S
    assert outcomes.wait_s(5, reply=SmtpReply(452, "4.2.2 mailbox full")) == 4 * HOUR_S
    assert outcomes.wait_s(1, reply=SmtpReply(452, "4.3.1 disk full")) == MINUTE_S


def test_every_wait_is_scaled() -> None:
    assert outcomes.wait_s(1, scale=0.1) == 6
    assert outcomes.wait_s(1, reply=SmtpReply(450, "try again in 20 seconds"), scale=0.1) == 2


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    wished = outcomes.wished_wait_s(text)
    assert wished is None or 1 <= wished <= 24 * HOUR_S


@pytest.mark.parametrize("repeated", ["defer", "greylist", "wait 1 ", "try again ", "retry 1    \n"])
def test_the_longest_reply_is_read_at_once_whatever_it_repeats(repeated: str) -> None:
    text = repeated * (65_536 // len(repeated))
    # Where every start of a word is compared with all that follows, this takes hours.
    assert outcomes.wait_s(1, reply=SmtpReply(451, text)) > 0
