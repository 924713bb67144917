"""A timeline has the relay's words as they are."""

from __future__ import annotations

from datetime import UTC, datetime

from contracts.emails import Attempt, Recipient
from emailer.mails import timeline

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_the_reply_of_an_attempt_is_shown_as_the_relay_wrote_it() -> None:
    answered = Attempt(
        at=NOW, host="r:25", outcome="failed", smtp_code=550, smtp_reply="5.1.1 a:  b", tls=True
    )
    silent = Attempt(
        at=NOW, host="r:25", outcome="deferred", smtp_code=None, smtp_reply="no answer", tls=True
    )
    recipient = Recipient(address="a@example.com", kind="to", status="failed", attempts=[silent, answered])
    details = [event.detail for event in timeline.of(NOW, [recipient], [])]
    assert details == ["", "deferred: no answer", "failed: 550 5.1.1 a:  b"]


def test_replies_that_are_long_together_are_cut_at_one_length_and_short_ones_are_whole() -> None:
    texts = ["short", *["é" * 4000] * 499]
    found = timeline.shortened(texts)
    assert found[0] == "short"
    assert sum(len(text.encode()) for text in found) <= timeline.MOST_REPLY_BYTES
    (cut,) = set(found[1:])
    assert cut == "é" * ((timeline.MOST_REPLY_BYTES // 500 - 3) // 2) + "…"


def test_replies_that_are_short_enough_together_are_whole() -> None:
    texts = ["é" * 4000] * 8
    assert timeline.shortened(texts) == texts
    assert timeline.shortened([]) == []
